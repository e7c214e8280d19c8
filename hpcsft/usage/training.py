"""What the time of attempts at training went into, from their journals and the steps that stand. Pure.

What the parts mean is told in the docstring of the package.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from hpcsft.attempt.journal import last
from hpcsft.usage.attempts import Attempt, milliseconds
from hpcsft.usage.record import Part


class Step(NamedTuple):
    """One line of metrics.jsonl."""

    step: int
    time_ms: int
    """Its end, in milliseconds since 1970."""
    elapsed_ms: int
    data_ms: int
    ends_epoch: bool


class Line:
    """The time of one attempt, handed out to parts from its beginning to its end: not a millisecond twice."""

    def __init__(self, attempt: Attempt):
        self.at_ms, self.end_ms = attempt.begin_ms, attempt.end_ms
        self.parts: Counter[Part] = Counter()

    def take(self, part: Part, duration_ms: int) -> None:
        """Give the next `duration_ms` to `part`, or what is left."""
        taken_ms = max(0, min(duration_ms, self.end_ms - self.at_ms))
        self.parts[part] += taken_ms
        self.at_ms += taken_ms

    def until(self, part: Part, moment_ms: int) -> None:
        """Give the time until `moment_ms` to `part`."""
        self.take(part, moment_ms - self.at_ms)


def split(attempts: Sequence[Attempt], steps: Sequence[Step], validated_ms: Sequence[int] = ()) -> list[Counter[Part]]:
    """The milliseconds of each attempt by part; their sum is its duration.

    `steps` ascend. `validated_ms` tells when each validation loss was written.
    """
    shares = _shares(attempts, steps)
    typical_ms = round(median(step.elapsed_ms for step in steps)) if steps else 0
    epoch_ends = {0, *(step.step for step in steps if step.ends_epoch)}
    started, found = False, []
    for number, (attempt, share) in enumerate(zip(attempts, shares, strict=True)):
        following = (last(later.rows, "resumed") for later in attempts[number + 1 :])
        lost_steps = next((row["lost_steps"] for row in following if row), 0)
        losses_ms = [moment for moment in validated_ms if attempt.begin_ms <= moment <= attempt.end_ms]
        line = Line(attempt)
        if share or losses_ms or attempt.end in ("done", "open"):
            line.until("start_again" if started else "start", _resumed_ms(attempt))
            started = True
            step = _steps(line, attempt, share, epoch_ends)
            _tail(line, attempt, step, step in epoch_ends, losses_ms, lost_steps, typical_ms)
        else:
            own_ms = [milliseconds(row["time"]) for row in attempt.rows if row["event"] != "end"]
            line.until("nothing_kept", max(own_ms, default=attempt.end_ms))
            line.take("nothing_kept", lost_steps * typical_ms)
            line.until("hang" if attempt.cause == "hang" else "nothing_kept", attempt.end_ms)
        found.append(line.parts)
    return found


def _shares(attempts: Sequence[Attempt], steps: Sequence[Step]) -> list[Sequence[Step]]:
    """The steps of each attempt: a step belongs to the last one that resumed before it."""
    numbers = [step.step for step in steps]
    shares: list[Sequence[Step]] = []
    stop = len(steps)
    for attempt in reversed(attempts):
        resumed = last(attempt.rows, "resumed")
        first = min(stop, bisect_right(numbers, resumed["step"])) if resumed else stop
        shares.append(steps[first:stop])
        stop = first
    return shares[::-1]


def _resumed_ms(attempt: Attempt) -> int:
    """When steps could begin; its end if they never could."""
    row = last(attempt.rows, "resumed")
    return milliseconds(row["time"]) if row else attempt.end_ms


def _steps(line: Line, attempt: Attempt, share: Sequence[Step], epoch_ends: set[int]) -> int:
    """Hand out the time up to the end of the last step that stands; returns its number."""
    resumed = last(attempt.rows, "resumed")
    step = resumed["step"] if resumed else 0
    saves = _saves(attempt)
    for next_step in share:
        began_ms = next_step.time_ms - next_step.elapsed_ms
        _saving(line, saves.get(step), step in epoch_ends, began_ms)
        line.until("epoch_ends" if step in epoch_ends else "other", began_ms)
        line.take("data", min(next_step.data_ms, next_step.time_ms - line.at_ms))
        line.until("work", next_step.time_ms)
        step = next_step.step
    return step


class Save(NamedTuple):
    """One row `saved`."""

    held_ms: int
    published_ms: int


def _saves(attempt: Attempt) -> dict[int, Save]:
    rows = [row for row in attempt.rows if row["event"] == "saved"]
    return {row["step"]: Save(round(row["held_s"] * 1000), milliseconds(row["time"])) for row in rows}


def _saving(line: Line, save: Save | None, until_published: bool, until_ms: float = math.inf) -> None:
    """What a save held up, before the moment `until_ms`."""
    if save:
        held_ms = max(save.held_ms, save.published_ms - line.at_ms if until_published else 0)
        line.take("saving", round(min(held_ms, until_ms - line.at_ms)))


def _tail(
    line: Line,
    attempt: Attempt,
    step: int,
    at_epoch_end: bool,
    losses_ms: Sequence[int],
    lost_steps: int,
    typical_ms: int,
) -> None:
    """Hand out what comes after `step`, the last that stands."""
    saves = _saves(attempt)
    stopped = attempt.end == "stopped"
    if stopped and saves:
        line.until("saving", max(save.published_ms for save in saves.values()))
    else:
        _saving(line, saves.get(step), at_epoch_end)
    if losses_ms:
        line.until("epoch_ends", max(losses_ms))
    if attempt.end == "done":
        rest: Part = "epoch_ends" if at_epoch_end else "other"
    elif attempt.cause == "hang":
        line.take("steps_again", lost_steps * typical_ms)
        rest = "hang"
    elif attempt.end == "open" or (stopped and not lost_steps and not at_epoch_end):
        rest = "other"
    elif at_epoch_end and lost_steps:  # what follows an epoch comes before the next step: it was finished
        line.until("epoch_ends", attempt.end_ms - lost_steps * typical_ms)
        rest = "steps_again"
    else:
        rest = "steps_again"
    line.until(rest, attempt.end_ms)
