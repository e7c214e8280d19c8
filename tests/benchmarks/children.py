"""Runs what a benchmark compares: every run a process of its own, in the Python that it needs; none outlives us."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CORES = 2


def take_cores() -> None:
    """Keep this process and all its children to the same cores, and end those when this one is terminated."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def environment() -> dict[str, str]:
    """Ours, with everyone's own choice of threads, and offline."""
    ours = {name: value for name, value in os.environ.items() if name not in ("TOKENIZERS_PARALLELISM", "PYTHONPATH")}
    return {**ours, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": str(CORES)}


def run_child(
    python: Path, module: str, options: Sequence[object], label: str, timeout_s: float
) -> dict[str, Any] | None:
    """What `python -m tests.benchmarks.MODULE OPTIONS` prints as its last line, JSON.

    None, and a line on stderr that says why, if it fails. Its own children end with it.
    """
    command = [str(python), "-m", f"tests.benchmarks.{module}", *map(str, options)]
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=pipe, stderr=pipe, text=True, start_new_session=True
        ) as child:
            try:
                output, errors = child.communicate(timeout=timeout_s)
            except BaseException:
                os.killpg(child.pid, signal.SIGKILL)
                raise
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"left out: {label}: {error}", file=sys.stderr, flush=True)
        return None
    if child.returncode:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # what a child that was killed has left
        reason = (errors.strip().splitlines() or ["no message"])[-1]
        print(f"left out: {label}: {reason}", file=sys.stderr, flush=True)
        return None
    return json.loads(output.strip().splitlines()[-1])
