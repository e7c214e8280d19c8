"""Win rates as AlpacaEval defines them, position bias, and whether two checkpoints differ. Pure.

With u = preference - 1 over the rows whose preference is a number in [1, 2]:

    win_rate = 100 mean(u)      standard_error = 100 std(u, ddof=1) / sqrt(n)
    a win is u > 0.5, a draw u = 0.5            avg_length = int(mean characters of the model's outputs, all rows)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from hpcsft.records import Record

SIGNIFICANT_Z = 1.96
"""Two-sided 5%."""


class PositionBias(Record):
    """How much the order of the two answers decides, in percent."""

    first: float | None
    """Win rate of the model where its answer was shown first."""
    second: float | None
    """And where it was shown second."""
    chosen_first: float | None
    """How often the answer shown first was preferred; 50 for a judge without bias when both orders are judged."""


class Scores(Record):
    """The scores of one checkpoint."""

    win_rate: float | None
    standard_error: float | None
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    discrete_win_rate: float | None
    avg_length: int | None
    n_unparsed: int
    position_bias: PositionBias


class Difference(Record):
    """A paired comparison of two checkpoints over the prompts that both have a preference for."""

    before: str
    after: str
    difference: float
    """Win rate of `after` minus that of `before`, in percentage points."""
    standard_error: float | None
    z: float | None
    significant: bool


def score(annotations: Sequence[dict[str, Any]]) -> Scores:
    """The scores of a list of annotations."""
    kept = [value for value in map(_utility, annotations) if value is not None]
    n, wins, draws = len(kept), sum(u > 0.5 for u in kept), sum(u == 0.5 for u in kept)
    lengths = [len(row["output_2"]) for row in annotations]
    return Scores(
        win_rate=100 * statistics.fmean(kept) if kept else None,
        standard_error=100 * statistics.stdev(kept) / math.sqrt(n) if n > 1 else None,
        n_wins=wins,
        n_wins_base=n - wins - draws,
        n_draws=draws,
        n_total=n,
        discrete_win_rate=100 * (wins + draws / 2) / n if n else None,
        avg_length=int(statistics.fmean(lengths)) if lengths else None,
        n_unparsed=len(annotations) - n,
        position_bias=position_bias(annotations),
    )


def _utility(row: dict[str, Any]) -> float | None:
    value = row.get("preference")
    if isinstance(value, (int, float)) and 1 <= value <= 2:  # NaN fails both comparisons
        return float(value) - 1
    return None


def position_bias(annotations: Sequence[dict[str, Any]]) -> PositionBias:
    """What the order of the answers does to the verdicts."""
    by_place: dict[bool, list[float]] = {True: [], False: []}
    for row in annotations:
        for order in row.get("orders", []):
            if order["preference"] is not None:
                by_place[order["model_first"]].append(order["preference"] - 1)
    chosen_first = by_place[True] + [1 - u for u in by_place[False]]
    return PositionBias(
        first=_percent(by_place[True]), second=_percent(by_place[False]), chosen_first=_percent(chosen_first)
    )


def _percent(values: Sequence[float]) -> float | None:
    return 100 * statistics.fmean(values) if values else None


def compare(before: str, old: Sequence[dict[str, Any]], after: str, new: Sequence[dict[str, Any]]) -> Difference | None:
    """The paired difference of two checkpoints; None if no prompt has a preference in both."""
    earlier = {row["instruction"]: _utility(row) for row in old}
    changes = [
        100 * (later - earlier[row["instruction"]])
        for row in new
        if (later := _utility(row)) is not None and earlier.get(row["instruction"]) is not None
    ]
    if not changes:
        return None
    mean = statistics.fmean(changes)
    error = statistics.stdev(changes) / math.sqrt(len(changes)) if len(changes) > 1 else None
    z = mean / error if error else None
    return Difference(
        before=before,
        after=after,
        difference=mean,
        standard_error=error,
        z=z,
        significant=abs(z) >= SIGNIFICANT_Z if z is not None else error == 0 and mean != 0,
    )
