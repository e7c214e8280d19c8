"""TensorBoard and W&B for a run: each is fed by a process of its own, which follows metrics.jsonl.

That process (`tracker_process.py`) sends everything that the file holds, from the first step on, then what is added. So
nothing has to be carried over from one attempt to the next, steps that are done again are shown once, and a tracker
that fails, hangs or is slow costs training nothing.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from hpcsft.attempt.heartbeat import start_listener
from hpcsft.errors import StageError
from hpcsft.rundir import RunDir

PROCESS = "hpcsft.train.tracker_process"
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
"""How an attempt ends: training is over, another attempt will go on, or it said nothing."""
FINISH_WAIT_S = 30.0


def missing_packages(trackers: Iterable[str]) -> list[str]:
    """Those of `trackers` whose package, which has the same name, is not installed. Imports nothing."""
    found = {name: importlib.util.find_spec(name) for name in trackers}
    return [name for name, spec in found.items() if spec is None or spec.origin is None]  # a folder has no origin


def how_to_install(packages: Iterable[str]) -> str:
    """The hint for `missing_packages`."""
    return f"pip install {' '.join(packages)}, or leave it out of train.trackers"


class Trackers:
    """Rank 0's end of the lines to its trackers. Made by `start`; its methods never raise, and only `close` waits."""

    def __init__(self, lines: list[tuple[subprocess.Popen[bytes], int]]):
        self._lines = lines

    @classmethod
    def start(cls, names: Collection[str], run: RunDir) -> Trackers:
        """Start to feed `names` ("tensorboard", "wandb") with what `run` measures. Call after MetricsLog.rewind.

        Raises StageError if a package is missing.
        """
        if missing := missing_packages(names):
            message = f"train.trackers: not installed here: {', '.join(missing)}"
            raise StageError(message, how_to_install(missing))
        root = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-m", PROCESS, str(run.path)]
        return cls([start_listener([*command, name], root) for name in names])

    def look(self) -> None:
        """There are new lines to send."""
        for _, pipe in self._lines:
            with suppress(OSError):  # full: it is behind, and will see them; broken: it has said why it ended
                os.write(pipe, b"\n")

    def close(self, finished: bool) -> None:
        """Training is over: give them FINISH_WAIT_S to send the rest. Or another attempt will go on, and send it all:
        then none of the grace time is spent on them."""
        for _, pipe in self._lines:
            with suppress(OSError):
                os.write(pipe, f"{FINISHED if finished else STOPPED}\n".encode())
            os.close(pipe)
        deadline_s = time.monotonic() + FINISH_WAIT_S
        for process, _ in self._lines if finished else ():
            try:
                process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        self._lines = []
