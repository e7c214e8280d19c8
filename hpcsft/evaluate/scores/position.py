"""What the order of the two answers decides. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

from hpcsft.evaluate.scores.annotations import Row
from hpcsft.records import Record


class PositionBias(Record):
    """Rates in percent; None where nothing was shown that way."""

    first: float | None
    """Win rate of the model where its answer was shown first."""
    second: float | None
    """And where it was shown second."""
    chosen_first: float | None
    """How often the answer shown first was preferred; 50 for a judge without bias when both orders are judged."""
    n_first: int
    n_second: int
    consistency: float | None
    """Share of the pairs judged in both orders whose winner was the same in both."""
    n_both_orders: int
    """Pairs with a verdict in both orders."""
    order_source: Literal["recorded", "drawn"] | None = None
    """recorded: the file tells how each pair was shown. drawn: of some pair it does not, so that AlpacaEval's draw is
    taken for what its judge saw. None if nothing was shown,
    or in a report of an older version."""
    n_replies: int
    """Verdicts without a recorded order whose reply tells what was shown first."""
    n_replies_disagree: int
    """And how many of them name another order than AlpacaEval's draw."""


def position_bias(rows: Sequence[Row]) -> PositionBias:
    """Over every showing of every pair; pairs of equal answers were shown to nobody."""
    first = [place.utility for row in rows for place in row.places if place.model_first]
    second = [place.utility for row in rows for place in row.places if not place.model_first]
    both = [row.places for row in rows if {place.model_first for place in row.places} == {True, False}]
    same = [len({_winner(place.utility) for place in places}) == 1 for places in both]
    told = [row.reply_disagrees for row in rows if row.reply_disagrees is not None]
    return PositionBias(
        first=_percent(first),
        second=_percent(second),
        chosen_first=_percent(first + [1 - u for u in second]),
        n_first=len(first),
        n_second=len(second),
        consistency=_percent(same),
        n_both_orders=len(both),
        order_source=_order_source(rows),
        n_replies=len(told),
        n_replies_disagree=sum(told),
    )


def _order_source(rows: Sequence[Row]) -> Literal["recorded", "drawn"] | None:
    if not any(row.places for row in rows):
        return None
    return "drawn" if any(row.is_drawn for row in rows) else "recorded"


def _winner(utility: float) -> int:
    return (utility > 0.5) - (utility < 0.5)


def _percent(values: Sequence[float]) -> float | None:
    return 100 * statistics.fmean(values) if values else None
