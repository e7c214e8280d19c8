"""How many generated specs run a command, and how many refusals name no field: both have to be none.

    python -m tests.benchmarks.spec_fuzz --examples 10000

Specs full of shell go through the real rendering; each script is run by a real bash with stand-ins for srun and Python,
and read by the real `sbatch --test-only` of a MiniSlurm of its own.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster import doors
from tests.cluster.minislurm import MiniSlurm
from tests.cluster.settings import unavailable

BATCH = 200
"""Specs that are drawn, rendered and run together."""


def main() -> int:
    """Exit status: 0 if no command ran and every refusal names its field."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.spec_fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=10_000, help="specs (%(default)s)")
    parser.add_argument("--by-sbatch", type=int, default=5_000, help="scripts that sbatch reads, at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began_s = time.monotonic()
    tally, ran, read, wrong, unread = doors.Tally(), 0, 0, [], []
    with tempfile.TemporaryDirectory(prefix="spec-fuzz-") as name:
        folder = Path(name)
        os.chdir(folder)
        bash = doors.Bash(folder)
        sys.executable, interpreter = str(bash.python), sys.executable
        strategy = doors.specs(bash.canary, folder / "runs")
        batches = range(0, options.examples, BATCH)
        sample = random.Random(options.seed)
        cluster = None
        if unavailable() is None:
            sys.executable = interpreter
            cluster = MiniSlurm(folder / "slurm")
            cluster.up()
            os.environ["SLURM_CONF"] = str(cluster.conf)
            sys.executable = str(bash.python)
        try:
            for first in batches:
                drawn = doors.draw(strategy, min(BATCH, options.examples - first), options.seed + first)
                scripts = [script for values in drawn for script in doors.render(values, tally, str(bash.python))]
                wrong += bash.run(scripts)
                ran += len(scripts)
                if cluster:
                    few = min(len(scripts), -(-options.by_sbatch // len(batches)))
                    said = [doors.unreadable(script.text) for script in sample.sample(scripts, few)]
                    read += few
                    unread += [text for text in said if text]
                    wrong += ["sbatch ran a payload"] if bash.canary.exists() else []
        finally:
            if cluster:
                cluster.down()
    print(f"specs                       {tally.specs:,}")
    print(f"refused                     {tally.refused:,}")
    print(f"rendered                    {tally.rendered:,}, as {ran:,} scripts")
    print(f"run by bash                 {ran:,}")
    print(f"seen by sbatch              {read:,}, unreadable to it: {len(unread)}")
    print(f"commands executed           {len(wrong)}, calls with other words than intended included")
    print(f"refusals without a field    {len(tally.nameless)}")
    print(f"in {time.monotonic() - began_s:,.0f} s")
    for text in [*wrong[:3], *unread[:3], *map(str, tally.nameless[:3])]:
        print(f"\n{text}")
    return int(bool(wrong or unread or tally.nameless))


if __name__ == "__main__":
    sys.exit(main())
