"""The attempts at one task, from the rows of its journal. Pure.

When an attempt ended is told in the docstring of the package.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from hpcsft.attempt.journal import Row, last
from hpcsft.attempt.outcome import decisive_failure
from hpcsft.records import BY_HAND


@dataclass(frozen=True)
class Attempt:
    """One attempt. Times are milliseconds since 1970."""

    rows: Sequence[Row]
    begin_ms: int
    end_ms: int
    end: Literal["done", "stopped", "failed", "killed", "open"]
    """Its own last word; killed: it had none; open: nor has anything come after it."""
    kept: bool
    """Has it finished items? Training is judged by its steps instead."""

    @property
    def job_id(self) -> str:
        """Id of the job, or of the whole array."""
        return str(self.rows[0]["job_id"]).split("_")[0]

    @property
    def by_hand(self) -> bool:
        """Did a person start it, outside the cluster's queue?"""
        return self.job_id.startswith(BY_HAND)

    @property
    def world_size(self) -> int | None:
        """Its processes; None if it has not even started."""
        start = last(self.rows, "start")
        return start["world_size"] if start else None

    @property
    def duration_ms(self) -> int:
        """Time in allocation."""
        return self.end_ms - self.begin_ms

    @property
    def cause(self) -> str:
        """Why it ended, as in the journal; `done` or `unknown`."""
        if self.end == "done":
            return "done"
        told = last(self.rows, "end") or last(self.rows, "stopped") or decisive_failure(self.rows)
        return told["cause"] if told else "unknown"


def milliseconds(time: str) -> int:
    """A time as records write it, in milliseconds since 1970."""
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def attempts_of(rows: Sequence[Row], seen_ms: Sequence[int] = (), done_items: int = 0) -> list[Attempt]:
    """The attempts that `rows` of one task tell, the oldest first.

    `seen_ms` are other signs of life, whoever gave them, ascending; `done_items` is how far the task has come.
    """
    groups = sorted(_grouped(rows), key=_begin_ms)
    begins = [_begin_ms(group) for group in groups]
    found = []
    for number, (group, begin_ms) in enumerate(zip(groups, begins, strict=True)):
        following = groups[number + 1] if number + 1 < len(groups) else None
        start = last(following, "start") if following else None
        end = _last_word(group, following is not None)
        told = last(group, "end")
        signs_ms = [begin_ms, *(milliseconds(row["time"]) for row in _own(group))]
        if told and "status" in told:  # whoever looks back at an earlier attempt knows of no status
            signs_ms = [begin_ms, milliseconds(told["time"])]
        elif end in ("killed", "open"):
            ceiling_ms = begins[number + 1] if following else math.inf
            newest = bisect_right(seen_ms, ceiling_ms)
            signs_ms += seen_ms[max(0, newest - 1) : newest]
            if start and start.get("last_seen"):
                signs_ms.append(min(ceiling_ms, milliseconds(start["last_seen"])))
        end_ms = max(signs_ms)
        reached = start.get("done", 0) if start else done_items
        found.append(Attempt(group, begin_ms, end_ms, end, end in ("done", "open") or _kept(group, reached)))
    return found


def _begin_ms(group: Sequence[Row]) -> int:
    return min(milliseconds(row["time"]) for row in _own(group) or group)


def _own(group: Sequence[Row]) -> list[Row]:
    """What the attempt itself wrote."""
    return [row for row in group if row["event"] != "end"]


def _grouped(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows by attempt. A second start under the same name, as by hand from one shell, is another attempt."""
    groups: list[list[Row]] = []
    newest: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        token = (row["job_id"], row["restart"])
        if token not in newest or (row["event"] == "start" and last(newest[token], "start")):
            newest[token] = []
            groups.append(newest[token])
        newest[token].append(row)
    return groups


def _last_word(group: Sequence[Row], followed: bool) -> Literal["done", "stopped", "failed", "killed", "open"]:
    for word in ("done", "stopped", "failed"):
        if last(group, word):
            return word
    return "killed" if followed or last(group, "end") else "open"


def _kept(group: Sequence[Row], reached: int) -> bool:
    """Was an item finished? `reached` is how many were when the attempt had ended."""
    start, end = last(group, "start"), last(group, "end")
    if end:
        return end["progressed"]
    return start is not None and reached > start.get("done", 0)
