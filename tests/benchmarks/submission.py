"""What a submission takes beside sbatch itself: a chain of five stages on a real Slurm of this machine.

    python -m tests.benchmarks.submission --repeats 10

Every call of Slurm's commands goes through a wrapper that writes down when it began and ended. Told are, for each
submission: the wall time of the whole command, what the five `sbatch` calls that queue the stages took together, and
the rest, which is hpcsft's own: imports, validation, inputs, preflight with its questions to Slurm, the copy of the
code, the records. Beside it stands a command that imports pydantic, rich and submitit and does nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.minislurm import MiniSlurm
from tests.conftest import build_tiny_model, make_spec_values
from tests.launch.command import ROOT, environment

PROGRAMS = ("sbatch", "scontrol", "sinfo", "sacctmgr", "squeue", "scancel", "sacct")
WRAPPER = """#!/bin/sh
began=$(date +%s%N)
{real} "$@"
status=$?
echo "$began $(date +%s%N) {name} $*" >> {calls}
exit $status
"""
FLOOR = "import pydantic, rich.console, submitit"


def timed_programs(folder: Path) -> Path:
    """A folder for PATH whose programs write down what they took; the file of their calls is `calls` in it."""
    folder.mkdir()
    for name in PROGRAMS:
        real = shutil.which(name)
        assert real, f"{name} is not installed"
        (folder / name).write_text(WRAPPER.format(real=real, name=name, calls=folder / "calls"))
        (folder / name).chmod(0o755)
    return folder


def calls_of(folder: Path) -> list[tuple[float, str]]:
    """Seconds and command line of each call since the last time, and forget them."""
    calls = folder / "calls"
    lines = calls.read_text().splitlines() if calls.exists() else []
    calls.unlink(missing_ok=True)
    rows = [line.split(" ", 2) for line in lines if line[:1].isdigit()]
    return [((int(end) - int(began)) / 1e9, words) for began, end, words in rows]


def queues(words: str) -> bool:
    """Is it an sbatch that queues a job, and not only asks?"""
    return words.startswith("sbatch ") and "--test-only" not in words


def took_s(command: list[str], cwd: Path, env: dict[str, str]) -> float:
    began_s = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - began_s


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name, MiniSlurm(Path(name) / "slurm") as cluster:
        root = Path(name)
        dialogs = [[f"What is {number} and {number}?", f"It is {2 * number}."] for number in range(200)]
        model = build_tiny_model(root / "model", dialogs)
        data, prompts = root / "data.jsonl", root / "prompts.json"
        data.write_text("".join(json.dumps({"id": str(n), "data": turns}) + "\n" for n, turns in enumerate(dialogs)))
        prompts.write_text(json.dumps([{"instruction": question, "output": reply} for question, reply in dialogs[:6]]))
        values = make_spec_values(model, data, prompts, root / "runs")
        values["cluster"] = {"kind": "slurm", "partition": "low", "cpus_per_task": 1, "time": 10}
        values["cluster"]["sbatch"] = {"hold": True}
        (root / "spec.json").write_text(json.dumps(values))
        programs = timed_programs(root / "bin")
        env = {**environment(), "SLURM_CONF": str(cluster.conf), "XDG_STATE_HOME": str(root)}
        env["PATH"] = f"{programs}:{env['PATH']}"
        print(f"{os.cpu_count()} cores, {len(list((ROOT / 'hpcsft').rglob('*.py')))} files of code to copy")
        rows = []
        for seed in range(-1, repeats):  # the first fills the caches of the disk
            command = [sys.executable, str(ROOT / "launch/submit.py"), "spec.json", "--set", f"seed={seed + 1}"]
            wall_s, calls = took_s(command, root, env), calls_of(programs)
            floor_s = took_s([sys.executable, "-c", FLOOR], root, env)
            sbatch_s = sum(seconds for seconds, words in calls if queues(words))
            asking_s = sum(seconds for seconds, words in calls if not queues(words))
            num_queued = sum(queues(words) for _, words in calls)
            rows.append((wall_s, sbatch_s, wall_s - sbatch_s, asking_s, floor_s))
            print(
                f"seed {seed + 1:>2}: {wall_s:.2f} s, {num_queued} sbatch {sbatch_s:.2f} s, {len(calls)} calls in all"
            )
        columns = list(zip(*rows[1:], strict=True))
        words = ("whole command", "sbatch calls", "on top of them", "questions to Slurm, one by one", "bare imports")
        for word, column in zip(words, columns, strict=True):
            print(f"{word:<32} median {statistics.median(column):.2f} s, at most {max(column):.2f} s")


if __name__ == "__main__":
    main()
