"""A rank's signs of life, and the watchdog that takes their absence for a hang.

The watchdog (`watchdog.py`) is a child process; what it does when the signs stop, and how long it waits, is told there.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Literal

from hpcsft.attempt.watchdog import CLOSE

WATCHDOG = Path(__file__).with_name("watchdog.py")
SETTLE_S = 10.0
CLOSE_WAIT_S = 5.0

# Slurm and terminals signal the whole process group, and the rank needs its watchdog until it has saved. Not among
# them: the signals that suspend, since a suspended job must not be watched by a clock that goes on.
OUTLIVED_SIGNALS = frozenset(
    {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT}
)

Phase = Literal["start", "convert", "step", "validate", "save", "export", "stop"]


class Heartbeat:
    """The rank's end of the line to its watchdog. Made by `start`; as a context manager it closes itself."""

    def __init__(self, watchdog: subprocess.Popen[bytes], pipe: int):
        self.watchdog = watchdog
        self.pid = os.getpid()
        self._pipe: int | None = pipe

    @classmethod
    def start(
        cls, folder: Path, rank: int, hang_file: Path, fixed_budget_s: float | None, settle_s: float = SETTLE_S
    ) -> Heartbeat:
        """Start to watch this process, in phase `start` of step 0.

        `folder`/RANK.json tells where the rank is; `hang_file` appears when it hangs. A phase may last
        `fixed_budget_s` without a beat, or what earlier beats suggest; from the dump of the stacks to the kill a hung
        rank has `settle_s`. SIGUSR1 makes this process print its stacks to fd 2 from here on. Raises OSError.
        """
        for needed in (folder, hang_file.parent):
            needed.mkdir(parents=True, exist_ok=True, mode=0o700)
        faulthandler.register(signal.SIGUSR1, file=2, all_threads=True, chain=False)
        settings = {
            "rank": rank,
            "pid": os.getpid(),
            "record": str((folder / f"{rank}.json").absolute()),
            "hang_file": str(hang_file.absolute()),
            "fixed_budget_s": fixed_budget_s,
            "settle_s": settle_s,
        }
        # -I -S: no site-packages and no path of ours, so that it starts fast and imports the standard library only.
        command = [sys.executable, "-I", "-S", str(WATCHDOG), json.dumps(settings)]
        return cls(*start_listener(command))

    def beat(self, phase: Phase, step: int) -> None:
        """Tell that this rank begins `phase` of `step`, or goes on in it. Takes microseconds, never waits or raises."""
        if self._pipe is not None:
            with suppress(OSError):  # full: the watchdog is suspended; broken: it is gone, and training goes on
                os.write(self._pipe, b"%s %d\n" % (phase.encode(), step))

    def close(self) -> None:
        """End the watchdog: from here on nothing is killed, however long the interpreter takes to end."""
        if self._pipe is None or os.getpid() != self.pid:  # a forked child has no say in it
            return
        with suppress(OSError):
            os.write(self._pipe, CLOSE + b"\n")
        os.close(self._pipe)
        self._pipe = None
        try:
            self.watchdog.wait(CLOSE_WAIT_S)
        except subprocess.TimeoutExpired:
            self.watchdog.kill()
            with suppress(subprocess.TimeoutExpired):  # stuck in a filesystem, with the kill pending
                self.watchdog.wait(CLOSE_WAIT_S)

    def __enter__(self) -> Heartbeat:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def start_listener(command: list[str], cwd: Path | None = None) -> tuple[subprocess.Popen[bytes], int]:
    """A child process that OUTLIVED_SIGNALS do not end, and a pipe to its standard input that never blocks."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # A child inherits the mask: the signals never reach it, not even before its first line.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, OUTLIVED_SIGNALS)
    try:
        return subprocess.Popen(command, stdin=reader, stdout=subprocess.DEVNULL, cwd=cwd), writer
    except BaseException:
        os.close(writer)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(reader)
