"""What the monitor costs and how soon it shows: many runs with held jobs on a real Slurm of this machine.

    python -m tests.benchmarks.monitor_refresh --runs 1000

Starts a MiniSlurm, submits the ten jobs of each run held, and shows all runs on the live screen in a pseudo terminal,
and one run alone. Told are: the time to the first screen; squeue calls, processor time and memory of the monitor over
some minutes; and how long a change takes to the screen: a line of a log, a status, a job that Slurm starts. A tick is
the pause until Slurm is asked again: 15 s, growing by half to 180 s while nothing changes, give or take a tenth.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hpcsft.plan import make_plan
from hpcsft.records import Progress, StageStatus, Submission, SubmittedStage, now, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from tests.cluster.minislurm import MiniSlurm
from tests.monitor.terminal import Terminal, cpu_s

VALUES: dict[str, Any] = {
    "name": "held",
    "model": {"path": "/models/none"},
    "data": {"train": ["/data/none.jsonl"]},
    "train": {"global_batch_size": 8, "micro_batch_size": 2, "epochs": 3},
    "cluster": {"preprocess": {"tasks": 4}},
    "evaluate": {"prompts": "/data/none.json", "shards": 3, "judge": {"kind": "local", "model": "/models/none"}},
}
"""Ten jobs: arrays of four and three tasks, and three jobs."""

REPEATS = 5


def held_run(cluster: MiniSlurm, runs_dir: Path, seed: int) -> RunDir:
    """A run directory whose jobs are in the queue, held."""
    spec = parse_spec({**VALUES, "runs_dir": str(runs_dir), "seed": seed})
    plan, run = make_plan(spec), RunDir(spec.run_path)
    run.create()
    write_json(run.plan, plan)
    write_json(run.spec, spec)
    jobs = []
    for stage in plan.stages:
        array = [f"--array=0-{stage.tasks - 1}"] if stage.tasks > 1 else []
        options = ("--hold", "--time=10", f"--job-name=held.{stage.name}", *array)
        job_id = cluster.submit("sleep 600", *options)
        jobs.append(SubmittedStage(stage=stage.name, job_id=job_id, depends_on=[], tasks=stage.tasks, submitted=now()))
    run.write_submission(Submission(cluster="slurm", host=socket.gethostname(), jobs=jobs))
    return run


def counting_squeue(folder: Path) -> dict[str, str]:
    """A PATH with an squeue that is counted before the real one runs."""
    folder.mkdir()
    real = next(path for path in os.environ["PATH"].split(":") if os.access(f"{path}/squeue", os.X_OK))
    (folder / "squeue").write_text(f'#!/bin/sh\necho >> {folder}/calls\nexec {real}/squeue "$@"\n')
    (folder / "squeue").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def num_calls(folder: Path) -> int:
    calls = folder / "calls"
    return len(calls.read_text().splitlines()) if calls.exists() else 0


def first_screen_s(run_arguments: list[Any], word: str, env: dict[str, str], cwd: Path) -> float:
    """Seconds from the start of the command to the first screen."""
    began_s = time.perf_counter()
    with Terminal.monitor(*run_arguments, cwd=cwd, env=env) as terminal:
        terminal.wait_for(word, "q quit")
        took_s = time.perf_counter() - began_s
        terminal.press("q")
        terminal.end()
    return took_s


def peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1000


def refreshes(runs_dir: Path, word: str, bin_folder: Path, env: dict[str, str], minutes: float) -> list[str]:
    """What the table of all runs costs while nothing happens."""
    with Terminal.monitor(runs_dir, cwd=runs_dir, env=env, columns=160, rows=50) as terminal:
        terminal.wait_for(word, "Slurm as of")
        asked, began_s, cpu_before_s = num_calls(bin_folder), time.monotonic(), cpu_s(terminal.pid)
        terminal.watch(60 * minutes)
        calls, took_s, used_s = (
            num_calls(bin_folder) - asked,
            time.monotonic() - began_s,
            cpu_s(terminal.pid) - cpu_before_s,
        )
        memory_mb = peak_mb(terminal.pid)
        before_s, asked = cpu_s(terminal.pid), num_calls(bin_folder)
        terminal.press("u")
        terminal.wait(lambda _: num_calls(bin_folder) > asked, "an squeue")
        terminal.watch(1.0)
        one_s = cpu_s(terminal.pid) - before_s
        terminal.press("q")
        terminal.end()
    return [
        f"in {took_s:.0f} s: {calls} squeue calls, {used_s:.2f} s of processor ({used_s / took_s:.1%} of one core)",
        f"one refresh on demand, squeue and files and screen: {one_s:.2f} s of processor",
        f"memory at most {memory_mb:.0f} MB",
    ]


def delay_s(terminal: Terminal, change: Callable[[], object], word: str) -> float:
    """Seconds from a change to its word on the screen."""
    began_s = time.monotonic()
    change()
    terminal.wait_for(word)
    return time.monotonic() - began_s


def delays(cluster: MiniSlurm, run: RunDir, env: dict[str, str]) -> list[str]:
    """From a change to the screen of one run."""
    job = run.read_submission().latest()["train"]
    folder = run.log_folder("train", job.job_id, 0)
    status = StageStatus(
        stage="train", index=0, state="running", attempt=1, job_id=job.job_id, started=now(), updated=now()
    )
    with Terminal.monitor(run.path, cwd=run.path, env=env) as terminal:
        terminal.wait_for("held by you")
        started_s = delay_s(terminal, lambda: cluster.run("scontrol", "release", job.job_id), "0:0")
        folder.mkdir(parents=True)
        for kind in ("out", "err"):
            (folder / f"0.{kind}").touch()
        progress = Progress(done=1, total=100, unit="steps")
        write_json(run.status_file("train", 0, 1), status.model_copy(update={"progress": progress}))
        terminal.wait_for("1/100 steps", "0.out")
        lines, statuses = [], []
        for number in range(REPEATS):
            with open(folder / "0.out", "a") as log:
                lines.append(
                    delay_s(
                        terminal, lambda n=number, f=log: print(f"line {n}.", file=f, flush=True), f"line {number}."
                    )
                )
            progress = Progress(done=10 + number, total=100, unit="steps")
            changed = status.model_copy(update={"progress": progress})
            path = run.status_file("train", 0, 1)
            statuses.append(delay_s(terminal, lambda p=path, c=changed: write_json(p, c), f"{10 + number}/100 steps"))
        terminal.press("q")
        terminal.end()
    return [
        f"a job that Slurm starts: {started_s:.1f} s (Slurm's own start included)",
        f"a line of a log: {statistics.median(lines):.2f} s, at most {max(lines):.2f} s",
        f"a status: {statistics.median(statuses):.2f} s, at most {max(statuses):.2f} s",
    ]


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=3.0, help="how long the costs are watched")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, MiniSlurm(Path(name) / "slurm", {"MaxJobCount": "50000"}) as cluster:
        root = Path(name)
        env = {"SLURM_CONF": str(cluster.conf), "XDG_STATE_HOME": str(root)}
        with ThreadPoolExecutor(4) as pool:
            runs = list(pool.map(lambda seed: held_run(cluster, root / "runs", seed), range(options.runs)))
        num_jobs = len(cluster.run("squeue", "-h", "-r").stdout.splitlines())
        print(f"{options.runs} runs, {num_jobs} jobs in the queue; {os.cpu_count()} cores")
        one = [first_screen_s([runs[0].path], runs[0].path.name, env, root) for _ in range(REPEATS)]
        print(f"first screen of one run: {statistics.median(one):.2f} s, at most {max(one):.2f} s")
        many = [first_screen_s([root / "runs"], f"{options.runs} runs", env, root) for _ in range(REPEATS)]
        print(f"first screen of all runs: {statistics.median(many):.2f} s, at most {max(many):.2f} s")
        env |= counting_squeue(root / "bin")
        lines = refreshes(root / "runs", f"{options.runs} runs", root / "bin", env, options.minutes)
        print("all runs, nothing happens:", *lines, sep="\n  ")
        print("one run, from a change to the screen:", *delays(cluster, runs[-1], env), sep="\n  ")


if __name__ == "__main__":
    main()
