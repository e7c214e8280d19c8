"""Prints logs: whole, their last lines, or what is appended until the stage is over."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from hpcsft.log_tail import Tail, TerminalText, offset_of_last
from hpcsft.logs.choose import STREAMS, Attempt, Choice, all_attempts
from hpcsft.logs.ending import Ending
from hpcsft.rundir import RunDir

POLL_INTERVAL_S = 0.5
QUIET_S = 5.0
"""What was cancelled or lost its driver may still say its last words for so long."""


class Printer:
    """Writes logs to stdout, and on stderr the name of the file that follows, whenever it is another."""

    def __init__(self, run: RunDir):
        self.run = run
        self.last: Path | None = None
        self.terminal = sys.stdout.isatty()
        self._texts: defaultdict[Path, TerminalText] = defaultdict(TerminalText)

    def show(self, tail: Tail) -> bool:
        """Print what is new in a file. Was there anything?"""
        anything = False
        while data := tail.read():
            if tail.path != self.last:
                self.say(f"==> {tail.path.relative_to(self.run.path)} <==")
                self.last = tail.path
            sys.stdout.buffer.write(self._for_terminal(tail.path, data) if self.terminal else data)
            anything = True
        sys.stdout.flush()
        return anything

    def _for_terminal(self, path: Path, data: bytes) -> bytes:
        return self._texts[path].feed(data).encode(sys.stdout.encoding, errors="replace")

    def say(self, text: str) -> None:
        """A line about the logs, which is not of them."""
        sys.stdout.flush()
        print(text, file=sys.stderr, flush=True)


def show(run: RunDir, choice: Choice, stream: str, num_lines: int | None = None) -> tuple[Printer, list[Tail]]:
    """Print the chosen logs, or only their last lines; returns what is needed to follow the last attempt."""
    printer = Printer(run)
    tails: list[Tail] = []
    for attempt in choice.attempts:
        tails = _tails(attempt, choice.rank, stream, num_lines)
        for tail in tails:
            printer.show(tail)
    return printer, tails


def follow(run: RunDir, choice: Choice, stream: str, num_lines: int | None = None) -> str:
    """Print the chosen logs, and what is appended, over requeues, until the stage is over. Returns its state.

    The end of a job that says nothing is noticed when nothing has come for a while; see `Ending`.
    """
    known = {attempt.folder for attempt in all_attempts(run)}
    printer, tails = show(run, choice, stream, num_lines)
    stage, index = choice.attempts[-1].stage, choice.attempts[-1].index
    ending, news_s = Ending(run, stage, index), time.monotonic()
    while True:
        state, certain = ending.look(time.monotonic() - news_s)
        newer = [a for a in all_attempts(run, stage) if a.index == index and a.folder not in known]
        if _show_all(printer, tails):  # after the looks: what was written before them is printed before they count
            news_s = time.monotonic()
        if newer:
            known.add(newer[0].folder)
            ending, news_s = Ending(run, stage, index), time.monotonic()  # a resume may have made another plan
            tails = _tails(newer[0], choice.rank, stream)
            printer.say(f"==> attempt {newer[0].folder.name} has started <==")
        elif state and (certain or time.monotonic() - news_s > QUIET_S):
            return state
        else:
            time.sleep(POLL_INTERVAL_S)


def _tails(attempt: Attempt, rank: int, stream: str, num_lines: int | None = None) -> list[Tail]:
    """Also of files that are not there yet."""
    files = [attempt.folder / f"{rank}.{kind}" for kind in STREAMS[stream]]
    if num_lines is None:
        return [Tail(file) for file in files]
    return [Tail(file, offset=offset_of_last(file, num_lines) if file.exists() else 0) for file in files]


def _show_all(printer: Printer, tails: Sequence[Tail]) -> bool:
    return any([printer.show(tail) for tail in tails])
