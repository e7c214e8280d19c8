"""Win rate and its companions, as AlpacaEval defines them. Pure.

With u = preference - 1 over the rows whose preference is a number in [1, 2]:

    win_rate = 100 mean(u)      standard_error = 100 std(u, ddof=1) / sqrt(n)
    a win is u > 0.5, a draw u = 0.5            avg_length = int(mean characters of the model's outputs, all rows)

A preference of 0 is a draw (AlpacaEval, metrics/helpers.py).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from hpcsft.evaluate.scores.annotations import Row
from hpcsft.records import Record


class WinRate(Record):
    """AlpacaEval's figures; rates and errors in percent."""

    win_rate: float | None
    standard_error: float | None
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    """Rows with a verdict."""
    discrete_win_rate: float | None
    """Each win as 1, each draw as 0.5, however sure the judge was."""
    avg_length: int | None


def win_rate(rows: Sequence[Row]) -> WinRate:
    """The figures of `rows`; None where there is too little for a number."""
    kept = utilities(rows)
    n, wins, draws = len(kept), sum(u > 0.5 for u in kept), sum(u == 0.5 for u in kept)
    lengths = [row.length for row in rows if row.length is not None]
    return WinRate(
        win_rate=100 * statistics.fmean(kept) if kept else None,
        standard_error=standard_error(kept),
        n_wins=wins,
        n_wins_base=n - wins - draws,
        n_draws=draws,
        n_total=n,
        discrete_win_rate=100 * (wins + draws / 2) / n if n else None,
        avg_length=int(statistics.fmean(lengths)) if lengths else None,
    )


def utilities(rows: Sequence[Row]) -> list[float]:
    """u of every row with a verdict."""
    return [row.utility for row in rows if row.utility is not None]


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean of `values`, in percent; None for fewer than two."""
    return 100 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
