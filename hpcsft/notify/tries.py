"""RUN_DIR/notified: who has tried to tell of an event, and what came of it.

Each try is a file that only one process can create: EVENT-JOBS.json, then EVENT-JOBS-2.json, ... JOBS is the number of
jobs submitted so far, so that a run that was resumed tells again. A try need not be in all ways: who lacks what a way
takes leaves that way to others.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from hpcsft.records import Record, now, read_json, write_json
from hpcsft.rundir import RunDir

CLAIM_S = 120.0
"""A try without an outcome that is older has been killed."""

MAX_TRIES = 5
"""After so many in one way nobody tries that way again: it will not work at the next look either."""


class Try(Record):
    """notified/EVENT-JOBS[-NUMBER].json."""

    started: str
    host: str
    ways: list[str]
    """What is tried: command, webhook."""
    ended: str | None = None
    delivered: bool | None = None
    """By all `ways`? null while it is under way."""
    failures: dict[str, str] = {}
    """Way -> why it failed."""


class Standing(NamedTuple):
    """What the tries so far leave to do."""

    number: int
    """Of the next try."""
    untried: list[str]
    """Ways that nobody has tried."""
    left: list[str]
    """Ways in which it was not told, nobody is at it, and that were not tried too often."""
    busy: bool
    """Is somebody at it?"""


class Tries:
    """The tries to tell of one event of one submission."""

    def __init__(self, run: RunDir, event: str, num_jobs: int):
        self.run = run
        self.event = event
        self.num_jobs = num_jobs

    def look(self, ways: Sequence[str]) -> Standing:
        """How the tries in `ways` stand. One that has not said yet what it tries counts as one in all of them."""
        number, counts, told, busy = 1, Counter[str](), set[str](), set[str]()
        while (file := self._file(number)).exists():
            found = self._read(number) or Try(started="", host="", ways=list(ways))
            counts.update(found.ways)
            if found.ended:
                told.update(way for way in found.ways if way not in found.failures)
            elif time.time() - file.stat().st_mtime <= CLAIM_S:
                busy.update(found.ways)
            number += 1
        untold = [way for way in ways if way not in told]
        return Standing(
            number,
            untried=[way for way in ways if not counts[way]],
            left=[way for way in untold if way not in busy and counts[way] < MAX_TRIES],
            busy=any(way in busy for way in untold),
        )

    def claim(self, number: int, ways: Sequence[str]) -> bool:
        """Begin a try, unless somebody else has. OSError if the run directory cannot be written."""
        self.run.notified.mkdir(mode=0o700, exist_ok=True)
        try:
            fd = os.open(self._file(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return False
        with open(fd, "w", encoding="utf-8") as file:
            file.write(Try(started=now(), host=socket.gethostname(), ways=list(ways)).model_dump_json())
        return True

    def close(self, number: int, failures: Mapping[str, str]) -> None:
        """Write down what came of a try."""
        begun = self._read(number)
        if begun:
            outcome = {"ended": now(), "delivered": not failures, "failures": dict(failures)}
            write_json(self._file(number), begun.model_copy(update=outcome))

    def _file(self, number: int) -> Path:
        return self.run.notification_file(self.event, self.num_jobs, number)

    def _read(self, number: int) -> Try | None:
        """None for one that was killed, or is looked at, while it was being written."""
        with contextlib.suppress(ValueError, ValidationError):
            return Try.model_validate(read_json(self._file(number)))
        return None
