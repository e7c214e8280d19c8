"""leaderboard.csv, written and read as AlpacaEval's tools do it. Pure but for reading."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

from hpcsft.errors import InputError
from hpcsft.report.document import LeaderboardRow, ModelResult, Results

FIGURES = (
    "win_rate",
    "standard_error",
    "n_wins",
    "n_wins_base",
    "n_draws",
    "n_total",
    "discrete_win_rate",
)
ALPACA_EVAL = (*FIGURES, "mode", "avg_length", "length_controlled_winrate", "lc_standard_error")
OWN = (
    "interval_low",
    "interval_high",
    "length_only_win_rate",
    "length_only_standard_error",
    "shown_first",
    "shown_second",
    "chosen_first",
    "consistency",
    "n_unparsed",
    "validation_loss",
)


def leaderboard_csv(results: Results) -> str:
    """AlpacaEval's columns, the model's name as index, and behind them what it does not know. Nothing is rounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *ALPACA_EVAL, *OWN])
    for model in results.models:
        if model.scores:
            name = f"{results.name}/{model.name}" if model.is_checkpoint else model.name
            cells = _cells(model)
            writer.writerow([name, *(cells[column] for column in (*ALPACA_EVAL, *OWN))])
    return text.getvalue()


def _cells(model: ModelResult) -> dict[str, object]:
    scores = model.scores
    assert scores is not None
    bias, interval = scores.position_bias, scores.interval or (None, None)
    return {
        **{column: getattr(scores, column) for column in FIGURES},
        "mode": "community",
        "avg_length": scores.avg_length,
        "length_controlled_winrate": scores.lc_win_rate,
        "lc_standard_error": scores.lc_standard_error,
        "interval_low": interval[0],
        "interval_high": interval[1],
        "length_only_win_rate": scores.length_only_win_rate,
        "length_only_standard_error": scores.length_only_standard_error,
        "shown_first": bias.first,
        "shown_second": bias.second,
        "chosen_first": bias.chosen_first,
        "consistency": bias.consistency,
        "n_unparsed": scores.n_unparsed,
        "validation_loss": model.validation_loss,
    }


def read_leaderboard(path: str | Path) -> list[LeaderboardRow]:
    """The rows of a leaderboard.csv. Raises InputError naming the row that is of another shape."""
    where = f"evaluate.leaderboards: {path}"
    hint = "expected AlpacaEval's leaderboard.csv: names in the first column, and a column win_rate"
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{where}: this is no text in UTF-8", hint) from None
    reader = csv.DictReader(lines)
    if not reader.fieldnames or "win_rate" not in reader.fieldnames:
        raise InputError(f"{where}: no column win_rate", hint)
    rows = []
    for number, row in enumerate(reader):
        try:
            rows.append(_row(row, reader.fieldnames[0], str(path)))
        except (TypeError, ValueError):
            raise InputError(f"{where}: row {number} is no row of a leaderboard", hint) from None
    return rows


def _row(row: Mapping[str, str], index: str, source: str) -> LeaderboardRow:
    def figure(column: str) -> float | None:
        value = float(row[column]) if row.get(column) else None
        if value is not None and not math.isfinite(value):
            raise ValueError(column)
        return value

    def count(column: str) -> int | None:
        value = figure(column)
        return None if value is None else int(value)

    rate = figure("win_rate")
    if rate is None:
        raise ValueError("win_rate")
    return LeaderboardRow(
        name=row[index],
        source=source,
        win_rate=rate,
        standard_error=figure("standard_error"),
        n_total=count("n_total"),
        avg_length=count("avg_length"),
    )
