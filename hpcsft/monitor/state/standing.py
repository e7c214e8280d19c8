"""How the answers do so far: win rates as verdicts come in. Pure.

While verdicts are missing, the interval is that of the normal distribution; the report has better ones.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from hpcsft.monitor.state.facts import Judged
from hpcsft.records import Record

Z_95 = 1.959964


class Standing(Record):
    """One checkpoint or other model."""

    name: str
    answers: int
    verdicts: int | None
    """So far; None in the end, when those on equal answers of other checkpoints count as well."""
    win_rate: float | None
    """In percent; so far, or the report's."""
    interval: tuple[float, float] | None
    """Of 95%, in percent."""
    final: bool
    """Does it stand in the report?"""


def standing(judged: Judged) -> Standing:
    """What is known of one checkpoint: the report's figures, else those of the verdicts so far."""
    known = {"name": judged.name, "answers": judged.answers}
    if judged.final:
        interval = tuple(judged.final["interval"]) if judged.final["interval"] else None
        return Standing(**known, verdicts=None, win_rate=judged.final["win_rate"], interval=interval, final=True)
    rows: dict[int, list[float]] = {}
    for row, utility in judged.verdicts:
        rows.setdefault(row, []).append(utility)
    means = [statistics.fmean(values) for values in rows.values()]
    rate = 100 * statistics.fmean(means) if means else None
    return Standing(**known, verdicts=len(judged.verdicts), win_rate=rate, interval=_interval(means), final=False)


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    if len(values) < 2:
        return None
    half = Z_95 * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return max(0.0, 100 * (mean - half)), min(100.0, 100 * (mean + half))
