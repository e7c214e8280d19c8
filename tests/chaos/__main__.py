"""python -m tests.chaos --faults 30 --seed 1 [--kinds preempt,kill] [--keep DIR]: exit 0 if every promise was kept."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.harness import Record, finish, inject_all
from tests.chaos.live import ChaosError, LiveRun
from tests.chaos.scene import Layout, Scene
from tests.chaos.schedule import KINDS, draw_faults, needed_steps
from tests.chaos.verdict import HEAD, differences, late_publishes, record_line, table_line, totals
from tests.cluster.minislurm import MiniSlurm

NAMESPACE = "HPCSFT_CHAOS_NAMESPACE"
EVERY_STEPS = 20


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=30, help="how many (default 30)")
    parser.add_argument("--seed", type=int, default=1, help="of the schedule (default 1)")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"only these: {','.join(KINDS)}")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs, journals and the result in DIR")
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    if NAMESPACE not in os.environ:  # mounts of a namespace of our own go away with it, whatever ends it
        os.environ[NAMESPACE] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, "-m", "tests.chaos", *sys.argv[1:]])
    root = Path(arguments.keep or tempfile.mkdtemp(prefix="chaos-")).absolute()
    root.mkdir(parents=True, exist_ok=True)
    with MiniSlurm(root / "slurm") as cluster:
        os.environ["SLURM_CONF"] = str(cluster.conf)
        problems = chaos(root, cluster, random.Random(arguments.seed), arguments.faults, kinds)
    print("\n".join(["", *(f"PROBLEM {problem}" for problem in problems)] if problems else ["", "every promise kept"]))
    if not problems and not arguments.keep:
        shutil.rmtree(root)
    else:
        print(f"logs and journals: {root}")
    return 1 if problems else 0


def chaos(root: Path, cluster: MiniSlurm, rng: random.Random, count: int, kinds: list[str]) -> list[str]:
    """One undisturbed run and one under faults; returns the broken promises."""
    faults = draw_faults(rng, count, kinds)
    # Old ranks that can go on training by themselves need each other: on one node.
    layout = Layout(1, 2) if set(kinds) == {"zombie"} else Layout(2, 1)
    scene = Scene(root, cluster, needed_steps(faults), EVERY_STEPS, layout)
    scene.build()
    scene.mount("chaos")
    say(f"{count} faults in {needed_steps(faults)} steps; the undisturbed run")
    live = LiveRun(scene, scene.submit("reference"), rng)
    started_s = time.monotonic()
    try:
        finish(live)
    finally:
        live.close()
    reference, steps = live.run, live.follower.highest
    say(f"{steps} steps in {time.monotonic() - started_s:.0f} s; the same under faults")
    print(table_line(HEAD), flush=True)
    live = LiveRun(scene, scene.submit("chaos"), rng)
    records: list[Record] = []

    def told(record: Record) -> None:
        records.append(record)
        print("\n".join([record_line(record), *(f"    {problem}" for problem in record.problems)]), flush=True)

    problems: list[str] = []
    try:
        inject_all(live, faults, told)
        finish(live)
        problems += differences(reference, live.run)
    except (ChaosError, RuntimeError, TimeoutError) as error:
        problems.append(f"the run did not come to its end: {error}")
    finally:
        live.close()
        scene.keep(live.run)
    problems = [*live.problems, *live.watch.problems, *late_publishes(live.follower.journal), *problems]
    print("\n" + totals(records, live.watch.codes))
    rows = [dataclasses.asdict(record) for record in records]
    (root / "chaos.json").write_text(json.dumps({"faults": rows, "problems": problems}, indent=2) + "\n")
    return problems


def say(text: str) -> None:
    """One line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
