"""RUN_DIR/notified: who has tried to tell of an event, and what came of it.

Each try is a file that only one process can create: EVENT-JOBS.json, then EVENT-JOBS-2.json, ... JOBS is the number of
jobs submitted so far, so that a run that was resumed tells again.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from hpcsft.records import Record, now, read_json, write_json
from hpcsft.rundir import RunDir

CLAIM_S = 120.0
"""A try without an outcome that is older has been killed."""

MAX_TRIES = 5
"""After so many nobody tries again: it will not work at the next look either."""


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


class Tries:
    """The tries to tell of one event of one submission."""

    def __init__(self, run: RunDir, event: str, num_jobs: int):
        self.run = run
        self.event = event
        self.num_jobs = num_jobs

    def due(self, ways: Sequence[str]) -> tuple[int, Sequence[str]] | None:
        """The number of the next try and what of `ways` is left to try; None if there is nothing left to do, or
        somebody is at it."""
        number = 0
        while number < MAX_TRIES and self._file(number + 1).exists():
            number += 1
        if number == 0:
            return 1, ways
        newest = self._read(number)
        if number == MAX_TRIES or (newest and newest.delivered):
            return None
        if newest is None or newest.ended is None:
            age_s = time.time() - self._file(number).stat().st_mtime
            return (number + 1, newest.ways if newest else ways) if age_s > CLAIM_S else None
        return number + 1, list(newest.failures)

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

    def _file(self, number: int) -> os.PathLike[str]:
        return self.run.notification_file(self.event, self.num_jobs, number)

    def _read(self, number: int) -> Try | None:
        """None for one that was killed, or is looked at, while it was being written."""
        with contextlib.suppress(ValueError, ValidationError):
            return Try.model_validate(read_json(self._file(number)))
        return None
