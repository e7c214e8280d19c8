"""`python -m tests.cluster up|down|status|env`: a MiniSlurm by hand, which lives until `down`."""

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from .minislurm import MiniSlurm, SlurmError

DEFAULT_ROOT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpcsft" / "minislurm"


def main() -> int:
    """Exit status: 0 done or up, 1 the cluster is not up or cannot be."""
    parser = argparse.ArgumentParser("python -m tests.cluster", description="A real Slurm on this machine.")
    parser.add_argument("action", choices=("up", "down", "status", "env"))
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="folder of the cluster (%(default)s)")
    options = parser.parse_args()
    cluster = MiniSlurm(options.root, guard=False)
    export = f"export SLURM_CONF={shlex.quote(str(cluster.conf))}"
    began = time.monotonic()

    if options.action == "down":
        cluster.down()
        print(f"down in {time.monotonic() - began:.1f} s; its logs stay in {cluster.logs}")
    elif options.action == "up":
        try:
            if not cluster.is_up():
                cluster.up()
        except (SlurmError, ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(f"# four nodes, partitions low and high; up in {time.monotonic() - began:.1f} s")
        print(f"{export}\nsinfo; squeue; sbatch -N2 --wrap 'srun hostname'; scontrol show job -o 1")
        print("python -m tests.cluster status | down      # look at it, end it")
    elif not cluster.is_up():
        print("not up; start it with: python -m tests.cluster up", file=sys.stderr)
        return 1
    else:
        print(export if options.action == "env" else cluster.overview(), end="\n" * (options.action == "env"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
