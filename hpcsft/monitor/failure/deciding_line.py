"""Which line of a log says why something ended. Pure.

A log says many things at its end: what went wrong, what went wrong because of that, and what the programs around it
make of it. Each line that could be the reason has a weight; the first of those with the lowest weight is it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hpcsft.monitor.failure.signs import (
    CANCELLED,
    LED_BY_RANK,
    SHELL,
    SRUN,
    Weight,
    is_echo,
    is_exception,
    kind_of,
    not_launched,
    sign_of,
)

LONGEST = 500
"""Characters of a line that are looked at."""

TELLING = ("out_of_memory", "host_memory", "disk_full", "node")
"""Kinds of exceptions that decide, whatever other exceptions they lead to."""

EPILOGUE = re.compile(r"RuntimeError: stage \w+ failed; its log is |[\w.]*ChildFailedError")
ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
TRACEBACK = "Traceback (most recent call last):"
WATCHDOG = "watchdog: rank "
CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
ASIDE = ("Exception ignored in", "--- Logging error ---")
"""What announces a traceback that ends nothing."""


def plain(line: str) -> str:
    """The line as it stands on a terminal, without colours, control characters and what `\\r` has overwritten."""
    line = line.rstrip("\r\n")
    line = line[line.rfind("\r") + 1 :][:LONGEST]
    if line.isprintable():
        return line
    return "".join(letter for letter in ESCAPE.sub("", line).replace("\t", " ") if letter.isprintable())


def deciding_line(lines: Sequence[str]) -> int | None:
    """The index of the line that says why; None if none does."""
    best = min(_candidates(lines), default=None)
    return best[1] if best else None


def most_telling(logs: Sequence[Sequence[str]]) -> int | None:
    """The index of the log whose deciding line says most, the first of several; None if none says anything."""
    best = [(min(_candidates(lines), default=None), index) for index, lines in enumerate(logs)]
    return min(((found[0], index) for found, index in best if found), default=(None, None))[1]


def _candidates(lines: Sequence[str]) -> Iterator[tuple[Weight, int]]:
    """Every line that could be the reason, with its weight. Tracebacks that belong together count as one."""
    chain: list[tuple[int, str]] = []
    inside = chained = announced = aside = False
    hung: int | None = None
    for index, line in enumerate(lines):
        text = LED_BY_RANK.sub("", plain(line), count=1)
        if text.startswith(TRACEBACK):
            if not chained:
                yield from _of_chain(chain)
                chain, aside = [], announced
            inside, chained, announced = True, False, False
        elif inside and is_exception(text):
            if not aside:
                chain.append((index, text))
            inside = False
        elif text.startswith(CHAINED):
            chained = True
        elif text.startswith(ASIDE):
            announced = True
        elif text.startswith(WATCHDOG):
            if "goes on" in text:
                hung = None
            elif hung is None:
                hung = index
        elif (weight := _weight(text)) is not None:
            yield weight, index
    yield from _of_chain(chain)
    if hung is not None:
        yield Weight.CAUSE, hung


def _of_chain(chain: Sequence[tuple[int, str]]) -> Iterator[tuple[Weight, int]]:
    """Of exceptions that led to each other, the first that tells by itself, else the last of those that say most."""
    if telling := [index for index, text in chain if kind_of(text) in TELLING]:
        yield Weight.CAUSE, telling[0]
    elif said := [(_of_exception(text), index) for index, text in chain if not EPILOGUE.match(text)]:
        yield min(said, key=lambda weighed: (weighed[0], -weighed[1]))


def _of_exception(text: str) -> Weight:
    if text.startswith("KeyboardInterrupt") or is_echo(text):
        return Weight.ECHO
    return Weight.DEATH if kind_of(text) == "nccl" else Weight.CAUSE


def _weight(text: str) -> Weight | None:
    """Of a line that ends no traceback."""
    if text[:1].isspace():  # a frame of a traceback, or more of a message
        return Weight.DEATH if text.lstrip().startswith("what():") else None
    if text.startswith("error: "):
        return Weight.ECHO if text.startswith("error: stopped ") else Weight.CAUSE
    if match := SRUN.match(text):
        if match["end"] == "Out Of Memory":
            return Weight.VERDICT
        return Weight.STATUS if match["end"].startswith("Exited with") else Weight.DEATH
    low = text.lower()
    if sign := sign_of(low):
        return None if "warning" in low else sign.outside
    if CANCELLED.match(text) or not_launched(text):
        return Weight.DEATH
    return Weight.SETUP if SHELL.match(text) else None
