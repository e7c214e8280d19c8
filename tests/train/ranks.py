"""Starts real training processes by hand, as torchrun would: one per rank, over gloo."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hpcsft.cluster.submit import prepare_run
from hpcsft.plan import make_plan
from hpcsft.records import read_jsonl
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from hpcsft.spec.load import _apply

TIMEOUT_S = 240


def new_run(values: dict[str, Any], runs_dir: Path, *overrides: str) -> RunDir:
    """A prepared run of `values` with `--set` overrides, its data preprocessed."""
    for override in overrides:
        _apply(values, override)
    values["runs_dir"] = str(runs_dir)
    spec = parse_spec(values)
    run = RunDir(spec.run_path)
    prepare_run(spec, make_plan(spec), run, [])
    subprocess.run([sys.executable, run.code / "jobs/preprocess.py", run.path], check=True, capture_output=True)
    return run


def start(run: RunDir, world_size: int, restart: int | None = None) -> list[subprocess.Popen[str]]:
    """Start the ranks; their output is kept. With `restart`, as that attempt at one job of the local driver."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in range(world_size):
        env = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
        }
        if restart is not None:
            env |= {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_GLOBALID": str(rank), "HPCSFT_JOB_ID": "local-0"}
            env |= {"SUBMITIT_LOCAL_LOCALID": str(rank), "SUBMITIT_LOCAL_NTASKS": str(world_size)}
            env["HPCSFT_RESTART"] = str(restart)
        command = [sys.executable, str(run.code / "jobs/train.py"), str(run.path)]
        ranks.append(subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    return ranks


def finish(ranks: list[subprocess.Popen[str]]) -> list[str]:
    """Wait for the ranks and return what each printed; none outlives this."""
    try:
        return [rank.communicate(timeout=TIMEOUT_S)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


def train(run: RunDir, world_size: int = 2) -> str:
    """Train to the end and return what rank 0 printed; AssertionError with the output if a rank fails."""
    ranks = start(run, world_size)
    outputs = finish(ranks)
    for rank, output in zip(ranks, outputs, strict=True):
        assert rank.returncode == 0, output
    return outputs[0]


def train_and_kill(run: RunDir, after_step: int, world_size: int = 2) -> None:
    """Train until a step is in the metrics and a checkpoint is whole, then SIGKILL every rank at once."""
    ranks = start(run, world_size)
    deadline_s = time.monotonic() + TIMEOUT_S

    def early() -> bool:
        newest = max((row["step"] for row in read_jsonl(run.metrics)), default=0)
        return newest < after_step or not any(run.checkpoints.glob("step-*/complete.json"))

    try:
        while early():
            assert all(rank.poll() is None for rank in ranks), ranks[0].communicate()[0]
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
    finally:
        for rank in ranks:
            rank.send_signal(signal.SIGKILL)
        for rank in ranks:
            rank.communicate()


def fail(run: RunDir, world_size: int = 2) -> str:
    """Train, expect that every rank fails, and return what they printed."""
    ranks = start(run, world_size)
    outputs = finish(ranks)
    assert all(rank.returncode for rank in ranks), outputs
    return "\n".join(outputs)
