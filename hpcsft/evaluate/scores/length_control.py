"""Win rates at equal length: AlpacaEval's own where it is defined, and a simpler one elsewhere. Pure but for reading.

    P(model wins) = sigmoid(w_l tanh(D / std(D, ddof=1)) + w_d difficulty + w_b),   D = len(reference) - len(model)

fitted on the preferences, then averaged over the prompts with D = 0 (Y. Dubois et al., "Length-Controlled AlpacaEval",
2024). The difficulties of AlpacaEval's 805 instructions belong to its GPT-4-turbo baseline; they are read from the
user's copy of AlpacaEval's data. `df_gamed.csv` also holds the answers of two baselines told to be short or long, which
take part in the fit with a tenth of the weight each; without them the fit is the same without this anchor.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpcsft.errors import InputError
from hpcsft.evaluate.scores.annotations import Annotations, Row
from hpcsft.evaluate.scores.logistic import fit, hessian_of, outer, predicted, solve
from hpcsft.evaluate.scores.win_rate import standard_error

FEWEST_ROWS = 10
NUM_INSTRUCTIONS = 805
BASELINES = ("gpt4_1106_preview", "gpt4_turbo")
GAMED_SIZE = 0.1
NUM_FOLDS = 5
PENALTIES = tuple(10 ** (4 - 8 * step / 9) for step in range(10))
"""1 / C for the ten C from 1e-4 to 1e4 that are tried, the strongest penalty first."""


class AtEqualLength(NamedTuple):
    """A rate in percent with its standard error, or why there is none."""

    rate: float | None
    standard_error: float | None
    undefined: str | None = None


class Difficulty(NamedTuple):
    """What AlpacaEval's file tells: difficulty by place of the instruction, and the rows of the gamed baselines."""

    by_place: dict[int, float]
    gamed: list[tuple[float, float, float]]
    """(tanh of the length difference, difficulty, utility) of each."""


def length_only(rows: Sequence[Row]) -> AtEqualLength:
    """The formula without difficulty; its standard error by the delta method with a sandwich covariance."""
    used = _comparable(rows)
    if len(used) < FEWEST_ROWS:
        return AtEqualLength(None, None, f"fewer than {FEWEST_ROWS} rows with a verdict and both lengths")
    features, targets = _length_feature(rows, used), [_known(row.utility) for row in used]
    if features is None:
        return AtEqualLength(None, None, "all lengths differ by the same")
    columns, sizes = [features, [1.0] * len(used)], [1.0] * len(used)
    weights = fit(columns, targets, sizes)
    if weights is None:
        return AtEqualLength(None, None, "length alone, or nothing, decides every verdict")
    probabilities = predicted(columns, weights)
    errors = [q - p for q, p in zip(probabilities, targets, strict=True)]
    inverse = solve(hessian_of(columns, sizes, probabilities), [0.0, 1.0])
    assert inverse is not None, "the fit went through the same matrix"
    scores = outer([error * error for error in errors], columns)
    variance = math.fsum(inverse[j] * scores[j][k] * inverse[k] for j in range(2) for k in range(2))
    rate = predicted([[0.0], [1.0]], weights)[0]
    return AtEqualLength(100 * rate, 100 * rate * (1 - rate) * math.sqrt(variance))


def length_controlled(model: Annotations, difficulty: Difficulty) -> AtEqualLength:
    """AlpacaEval's length-controlled win rate and its standard error. The rows stand in AlpacaEval's order."""
    if len(model.rows) != NUM_INSTRUCTIONS:
        return AtEqualLength(None, None, f"{len(model.rows)} rows; it is defined for AlpacaEval's {NUM_INSTRUCTIONS}")
    if model.reference not in BASELINES:
        return AtEqualLength(None, None, f"reference {model.reference}; it is defined against {BASELINES[0]}")
    places = [place for place, row in enumerate(model.rows) if _is_comparable(row)]
    used = [model.rows[place] for place in places]
    features = _length_feature(model.rows, used) if len(used) >= FEWEST_ROWS else None
    if features is None:
        return AtEqualLength(None, None, "too few verdicts, or lengths that all differ by the same")
    own = [
        (length, difficulty.by_place[place], _known(row.utility))
        for place, row, length in zip(places, used, features, strict=True)
    ]
    table = [(*row, 0.0, GAMED_SIZE) for row in difficulty.gamed] + [(*row, 1.0, 1.0) for row in own]
    penalty = _best_penalty(table)
    weights = _fit(table, penalty)
    if weights is None:
        return AtEqualLength(None, None, "no finite weights are best")
    columns = [[0.0] * NUM_INSTRUCTIONS, list(difficulty.by_place.values()), [1.0] * NUM_INSTRUCTIONS]
    rates = predicted(columns, weights)
    return AtEqualLength(100 * statistics.fmean(rates), standard_error(rates))


def _comparable(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if _is_comparable(row)]


def _is_comparable(row: Row) -> bool:
    return row.utility is not None and row.length is not None and row.reference_length is not None


def _known(value: float | None) -> float:
    assert value is not None
    return value


def _length_feature(rows: Sequence[Row], used: Sequence[Row]) -> list[float] | None:
    """tanh(D / std(D)) of `used`; the deviation is that of all rows, judged or not."""
    deltas = [_known(r.reference_length) - _known(r.length) for r in rows if None not in (r.reference_length, r.length)]
    deviation = statistics.stdev(deltas) if len(deltas) > 1 else 0.0
    if not deviation:
        return None
    return [math.tanh((_known(row.reference_length) - _known(row.length)) / deviation) for row in used]


Table = Sequence[tuple[float, float, float, float, float]]
"""Rows of (length, difficulty, utility, 1 for the model's own rows, size)."""


def _fit(table: Table, l1: float) -> list[float] | None:
    lengths, difficulties, targets, own, sizes = zip(*table, strict=True)
    return fit([lengths, difficulties, own], targets, sizes, l1)


def _best_penalty(table: Table) -> float:
    """The one whose fits predict the rows best that they did not see, over five folds."""
    folds = [([r for i, r in enumerate(table) if i % NUM_FOLDS != k], table[k::NUM_FOLDS]) for k in range(NUM_FOLDS)]

    def score(penalty: float) -> float:
        return math.fsum(_held_out(_fit(seen, penalty), unseen) for seen, unseen in folds)

    return max(PENALTIES, key=score)


def _held_out(weights: list[float] | None, table: Table) -> float:
    if weights is None:
        return -math.inf
    lengths, difficulties, targets, own, sizes = zip(*table, strict=True)
    rates = [min(max(q, 1e-15), 1 - 1e-15) for q in predicted([lengths, difficulties, own], weights)]
    terms = zip(sizes, targets, rates, strict=True)
    return math.fsum(s * (p * math.log(q) + (1 - p) * math.log(1 - q)) for s, p, q in terms) / len(table)


def read_difficulty(path: str | Path) -> Difficulty:
    """AlpacaEval's df_gamed.csv or instruction_difficulty.csv, or the same as JSON. Raises InputError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        rows = _json_rows(text) if str(path).endswith(".json") else list(csv.DictReader(text.splitlines()))
    except OSError as error:
        raise InputError(f"--difficulty {path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"--difficulty {path}: not valid JSON: {error}") from None
    hint = "expected AlpacaEval's df_gamed.csv or instruction_difficulty.csv (columns index and instruction_difficulty)"
    try:
        by_place = {int(_index(row)): float(row["instruction_difficulty"]) for row in rows}
        gamed = [_gamed(row) for row in rows if row.get("std_delta_len") and row.get("preference")]
    except (LookupError, TypeError, ValueError):
        raise InputError(f"--difficulty {path}: a row has another shape", hint) from None
    if sorted(by_place) != list(range(NUM_INSTRUCTIONS)):
        found = f"difficulties of {len(by_place)} instructions, not of places 0 to {NUM_INSTRUCTIONS - 1}"
        raise InputError(f"--difficulty {path}: {found}", hint)
    return Difficulty(dict(sorted(by_place.items())), gamed)


def _json_rows(text: str) -> list[Mapping[str, Any]]:
    value = json.loads(text)
    if isinstance(value, dict):
        return [{"index": place, "instruction_difficulty": number} for place, number in value.items()]
    return value


def _index(row: Mapping[str, Any]) -> Any:
    return row["index"] if "index" in row else row[""]


def _gamed(row: Mapping[str, Any]) -> tuple[float, float, float]:
    return math.tanh(float(row["std_delta_len"])), float(row["instruction_difficulty"]), float(row["preference"])
