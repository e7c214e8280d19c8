"""Asks the monitor all the time, and keeps every answer that is not true."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from hpcsft.rundir import RunDir
from tests.launch.command import launch

INTERVAL_S = 2.0
DONE, NO_SLURM, FAILED, UNFINISHED, CANCELLED = 0, 3, 100, 101, 103


class MonitorWatch:
    """Runs `launch/monitor.py RUN --once --json` every two seconds in a thread of its own, until `close`.

    The only right answer is 101, unfinished; `allowing` names what else is true for a while.
    """

    def __init__(self, run: RunDir):
        self.run = run
        self.codes: Counter[int] = Counter()
        self.last: list[int] = []
        """The answers in their order."""
        self.problems: list[str] = []
        self._allowed: Counter[int] = Counter({UNFINISHED: 1})
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="monitor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._closed.set()
        self._thread.join()

    @contextmanager
    def allowing(self, *codes: int) -> Iterator[None]:
        """These exit codes are true inside the block, and for a question that was asked in it."""
        self._allowed.update(codes)
        try:
            yield
        finally:
            self._allowed.subtract(codes)

    def gives_up(self) -> bool:
        """Has it said three times in a row that the run has failed? Then it has."""
        return self.last[-3:] == [FAILED] * 3

    def ask(self) -> int:
        """Ask now; the answer is judged by what is true before or after."""
        before = +self._allowed
        try:
            done = launch("monitor.py", self.run.path, "--once", "--json", cwd=self.run.path)
        except subprocess.TimeoutExpired as error:
            self._complain(f"gave no answer: {error}")
            return -1
        code, allowed = done.returncode, before + +self._allowed
        self.codes[code] += 1
        self.last.append(code)
        if code not in allowed:
            self._complain(f"exit code {code}, state {_summary(done.stdout)} {done.stderr.strip()[-300:]}")
        elif code == UNFINISHED and '"failed"' in done.stdout:
            self._complain(f"unfinished, but a stage is called failed: {_summary(done.stdout)}")
        return code

    def _loop(self) -> None:
        while not self._closed.is_set():
            started_s = time.monotonic()
            self.ask()
            self._closed.wait(max(0.0, started_s + INTERVAL_S - time.monotonic()))

    def _complain(self, text: str) -> None:
        if not (self.problems and self.problems[-1].endswith(text)):  # said once, however often it is repeated
            self.problems.append(f"{time.strftime('%H:%M:%S')} the monitor: {text}")


def _summary(document: str) -> str:
    """State and messages of the stages, from what the monitor printed."""
    try:
        state = json.loads(document)
    except ValueError:
        return document.strip()[-300:] or "(nothing)"
    stages = (f"{stage['name']} {stage['state']} {stage['message'] or ''}".strip() for stage in state["stages"])
    return f"{state['state']}: {'; '.join(stages)}"
