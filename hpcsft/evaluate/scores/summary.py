"""All figures of one model. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hpcsft.evaluate.scores.annotations import Annotations, Row
from hpcsft.evaluate.scores.intervals import Interval, share_interval
from hpcsft.evaluate.scores.length_control import Difficulty, length_controlled, length_only
from hpcsft.evaluate.scores.position import PositionBias, position_bias
from hpcsft.evaluate.scores.win_rate import WinRate, utilities, win_rate
from hpcsft.records import Record


class DatasetScores(Record):
    """The rows of one `dataset`, in percent."""

    win_rate: float | None
    standard_error: float | None
    interval: Interval | None
    n_total: int


class Scores(WinRate):
    """WinRate and what it hides."""

    name: str
    reference: str | None
    """Name of the model of output_1, where the file tells it."""
    judge: str | None
    n_unparsed: int
    """Rows without a verdict."""
    interval: Interval | None
    """95% confidence interval of the win rate, in percent."""
    position_bias: PositionBias
    length_only_win_rate: float | None
    """Win rate had both answers the same length, by length alone; not AlpacaEval's length-controlled rate."""
    length_only_standard_error: float | None
    length_only_undefined: str | None
    """Why there is none."""
    lc_win_rate: float | None
    """AlpacaEval's length-controlled win rate."""
    lc_standard_error: float | None
    lc_undefined: str | None
    """Why there is none; null also where it was not asked for."""
    datasets: dict[str, DatasetScores]
    """By data set of the prompts, where the file names more than one."""


def score(model: Annotations, difficulty: Difficulty | None = None) -> Scores:
    """The scores of `model`; with AlpacaEval's instruction difficulties the length-controlled win rate too."""
    rows = model.rows
    figures = win_rate(rows)
    at_equal_length = length_only(rows)
    controlled = length_controlled(model, difficulty) if difficulty else None
    return Scores(
        **figures.model_dump(),
        name=model.name,
        reference=model.reference,
        judge=model.judge,
        n_unparsed=len(rows) - figures.n_total,
        interval=_interval(rows),
        position_bias=position_bias(rows),
        length_only_win_rate=at_equal_length.rate,
        length_only_standard_error=at_equal_length.standard_error,
        length_only_undefined=at_equal_length.undefined,
        lc_win_rate=controlled.rate if controlled else None,
        lc_standard_error=controlled.standard_error if controlled else None,
        lc_undefined=controlled.undefined if controlled else None,
        datasets=_datasets(rows),
    )


def _interval(rows: Sequence[Row]) -> Interval | None:
    interval = share_interval(utilities(rows))
    return interval and (100 * interval[0], 100 * interval[1])


def _datasets(rows: Sequence[Row]) -> dict[str, DatasetScores]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.dataset, []).append(row)
    if len(groups) < 2:
        return {}
    return {name: _dataset(groups[name]) for name in sorted(groups)}


def _dataset(rows: Sequence[Row]) -> DatasetScores:
    figures = win_rate(rows)
    return DatasetScores(
        win_rate=figures.win_rate,
        standard_error=figures.standard_error,
        interval=_interval(rows),
        n_total=figures.n_total,
    )
