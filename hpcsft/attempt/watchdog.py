"""Watches one rank from outside its process, so that a hang anywhere inside cannot hang the watching too.

`heartbeat.py` runs this file by its path as a child of the rank: standard library only, a few MB, up in about 20 ms.
Beats come through stdin as lines `PHASE STEP`. When none comes for longer than the phase's budget, it leaves a record
of the hang, has the rank dump the stacks of its threads (SIGUSR1, faulthandler), and kills it unless a beat comes
within the settle time. Ranks that hang in a collective hang together, each under its own watchdog, so that the logs
hold the stacks of all of them. It ends with the rank, and signals nothing but the process that started it.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

CLOSE = b"."  # the line that says: the rank needs no watching any more

FIRST_S = 1800.0  # before a phase is known: the slowest model loading and first save that is no hang
ENOUGH_GAPS = 5  # then it is known
FLOOR_S = 300.0  # a node's hiccup; under the 600 s after which NCCL aborts without a Python stack
SLOW_FLOOR_S = 900.0  # writing waits for a shared filesystem that fails over
SLOW_PHASES = frozenset({"save", "export"})
STEADY_PHASES = frozenset({"step", "validate"})
TYPICAL_FACTOR = 10.0
LONGEST_FACTOR = 3.0  # what has happened once may happen again and take three times as long
REMEMBERED_GAPS = 100  # the outlier of a first step is forgotten after so many

TICK_S = 1.0
PHASE_RECORD_EVERY_S = 5.0  # the filesystem is shared by all ranks of all nodes
STEP_RECORD_EVERY_S = 30.0


class Budget:
    """How long a phase may go without a beat, in seconds: derived from the gaps between beats so far.

    A fixed time holds for steps and validation only: loading a model or saving takes as long as it takes.
    """

    def __init__(self, fixed_s: float | None = None):
        self.fixed_s = fixed_s
        self.gaps_s: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED_GAPS))

    def observe(self, phase: str, gap_s: float) -> None:
        """`gap_s` passed between a beat of `phase` and the next beat."""
        self.gaps_s[phase].append(gap_s)

    def seconds(self, phase: str) -> float:
        """The larger of a floor, 10 times the median gap and 3 times the longest of the last 100."""
        if self.fixed_s is not None and phase in STEADY_PHASES:
            return self.fixed_s
        gaps_s = sorted(self.gaps_s[phase])
        if not gaps_s:
            return FIRST_S
        known_s = SLOW_FLOOR_S if phase in SLOW_PHASES else FLOOR_S
        floor_s = known_s if len(gaps_s) >= ENOUGH_GAPS else FIRST_S
        return max(floor_s, TYPICAL_FACTOR * gaps_s[len(gaps_s) // 2], LONGEST_FACTOR * gaps_s[-1])


class Rank:
    """The process that started this one. A pidfd, or where there is none the parent's pid, is never somebody else's."""

    def __init__(self, pid: int):
        self.pid = pid
        try:
            self.pidfd: int | None = os.pidfd_open(pid)
        except (AttributeError, OSError):  # Linux < 5.3, a Python built on one, a strict seccomp filter
            self.pidfd = None

    def alive(self) -> bool:
        """An orphan gets another parent at once, before the pid can be given away."""
        return os.getppid() == self.pid

    def send(self, number: int) -> None:
        """Signal the rank if it lives."""
        if not self.alive():
            return
        with suppress(ProcessLookupError):
            if self.pidfd is None:
                os.kill(self.pid, number)
            else:
                signal.pidfd_send_signal(self.pidfd, number)

    def state(self) -> str:
        """The kernel's letter for the main thread: S sleeps, R runs, D waits for a device, T is stopped; ? unknown."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split()[0].decode()
        except (OSError, IndexError):
            return "?"


class Writer:
    """Writes in a thread, in order: a log or a folder that hangs, or a full disk, must not keep a hung rank alive."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...], threading.Event]] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._work, daemon=True).start()

    def do(self, call: Callable[..., None], *arguments: Any) -> threading.Event:
        """Call in the thread; the event is set when it is over, however it went."""
        over = threading.Event()
        self.calls.put((call, arguments, over))
        return over

    def _work(self) -> None:
        while True:
            call, arguments, over = self.calls.get()
            with suppress(OSError, ValueError):
                call(*arguments)
            over.set()


class Watchdog:
    """Listens to one rank until it closes, ends, or has to be killed."""

    def __init__(self, rank: int, pid: int, record: str, hang_file: str, fixed_budget_s: float | None, settle_s: float):
        self.rank, self.record, self.hang_file, self.settle_s = rank, record, hang_file, settle_s
        self.process = Rank(pid)
        self.budget = Budget(fixed_budget_s)
        self.writer = Writer()
        self.poll = select.poll()
        self.poll.register(0, select.POLLIN)
        if self.process.pidfd is not None:
            self.poll.register(self.process.pidfd, select.POLLIN)
        self.torn = b""
        self.closed = False
        self.num_beats = 0
        self.waited_s = 0.0
        self.phase, self.step = "start", 0
        self.since = self.updated = now()
        self.recorded_phase = ""
        self.recorded_beats = 0
        self.recorded_at_s = 0.0
        self.written = threading.Event()
        self.written.set()

    def run(self) -> None:
        """Watch to the end."""
        self._write_record()
        while self._listen(self.budget.seconds(self.phase)):
            if self.waited_s >= self.budget.seconds(self.phase):
                self._overrun()
            elif self._record_due():
                self._write_record()
        self._write_record()
        self.written.wait(self.settle_s)

    def _listen(self, until_s: float) -> bool:
        """Wait for beats, a tick at most. False when nothing is left to watch.

        A tick counts for no more than it was to last. So the time in which this process was itself suspended (with its
        job, or with the machine) is not held against the rank.
        """
        tick_s = max(0.001, min(TICK_S, until_s / 10, until_s - self.waited_s))
        began_s = time.monotonic()
        ready = [fd for fd, _ in self.poll.poll(tick_s * 1000)]
        self.waited_s += min(time.monotonic() - began_s, tick_s)
        if 0 in ready:
            received = os.read(0, 65536)
            if not received:
                return False
            self._take(received)
        return not self.closed and self.process.pidfd not in ready and self.process.alive()

    def _take(self, received: bytes) -> None:
        *lines, self.torn = (self.torn + received).split(b"\n")
        for line in lines:
            if line == CLOSE:
                self.closed = True
                return
            phase, _, step = line.decode(errors="replace").rpartition(" ")
            self.budget.observe(self.phase, self.waited_s)
            self.waited_s = 0.0
            self.num_beats += 1
            self.updated = now()
            if (phase, step) != (self.phase, str(self.step)):
                self.phase, self.step, self.since = phase, int(step), self.updated

    def _overrun(self) -> None:
        """Leave a record, have the stacks dumped, and kill the rank unless it goes on."""
        waited_s, budget_s, num_beats = self.waited_s, self.budget.seconds(self.phase), self.num_beats
        where = {"rank": self.rank, "host": os.uname().nodename, "phase": self.phase, "step": self.step}
        hang = {**where, "waited_s": round(waited_s, 1), "budget_s": round(budget_s, 1), "time": now()}
        self.writer.do(write_json, self.hang_file, hang, True)
        self._write_record()
        phase = f"phase {self.phase} {self.step}"
        line = f"rank {self.rank} has been in {phase} for {waited_s:.0f} s (budget {budget_s:.0f} s); stacks follow"
        state = self.process.state()
        if state in "TtD":
            line += f" if its process, in state {state}, can still take a signal"
        self.writer.do(say, line).wait(self.settle_s)
        self.process.send(signal.SIGUSR1)
        settled_s = self.waited_s + self.settle_s
        while self.num_beats == num_beats and self.waited_s < settled_s:
            if not self._listen(settled_s):
                return
        if self.num_beats > num_beats:
            self.writer.do(self._forget_hang)
            self.writer.do(say, f"rank {self.rank} goes on: it left {phase}")
            return
        self.writer.do(say, f"rank {self.rank} gave no sign for {self.settle_s:.0f} s more; killing it")
        self.process.send(signal.SIGKILL)
        while self._listen(float("inf")):
            pass

    def _forget_hang(self) -> None:
        os.unlink(self.hang_file)

    def _record_due(self) -> bool:
        if self.num_beats == self.recorded_beats or not self.written.is_set():
            return False
        every_s = STEP_RECORD_EVERY_S if self.phase == self.recorded_phase else PHASE_RECORD_EVERY_S
        return time.monotonic() - self.recorded_at_s >= every_s

    def _write_record(self) -> None:
        self.recorded_phase, self.recorded_beats, self.recorded_at_s = self.phase, self.num_beats, time.monotonic()
        where = {"rank": self.rank, "host": os.uname().nodename, "pid": self.process.pid}
        beat = {"phase": self.phase, "step": self.step, "since": self.since, "updated": self.updated}
        self.written = self.writer.do(write_json, self.record, {**where, **beat}, False)


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond; without `datetime`, which is slow to import."""
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03d}+00:00"


def say(line: str) -> None:
    """One line in the rank's log."""
    os.write(2, f"watchdog: {line}\n".encode())


def write_json(path: str, value: dict[str, Any], durable: bool) -> None:
    """Replace `path` in one step; `durable` makes it outlive the node. Raises OSError."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(json.dumps(value, indent=2) + "\n")
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise


if __name__ == "__main__":
    Watchdog(**json.loads(sys.argv[1])).run()
    os._exit(0)  # without waiting for a write that hangs
