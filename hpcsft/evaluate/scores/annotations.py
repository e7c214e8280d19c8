"""Rows of an annotation file: AlpacaEval's formats, old and new, and ours. Pure but for reading the file.

output_1 is the reference, output_2 the model. A preference lies between 1 (the reference is better) and 2 (the model
is); 1.5 is a draw, and so is the 0 of old files. In the rows of hpcsft `orders` tells every order that was judged; for
the others the order is drawn again as AlpacaEval draws it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpcsft.errors import InputError
from hpcsft.evaluate.prompts import read_array
from hpcsft.evaluate.verdicts import is_switched

REFERENCES = ("text_davinci_003", "gpt4_1106_preview", "gpt4_turbo", "reference")
"""Names of references: the only `generator` of an old file is the reference's where the model's answers had no name."""

SHAPE = 'a JSON array of {"instruction": "...", "output_1": "...", "output_2": "...", "preference": 1 to 2 or null}'
FIRST, SECOND = re.compile(r"(?:^|\n) ?Output \(a\)"), re.compile(r"(?:^|\n) ?Output \(b\)")


class Place(NamedTuple):
    """One showing of a pair to a judge."""

    model_first: bool
    utility: float
    """0 if the reference was preferred, 1 if the model was, 0.5 for a draw."""


class Row(NamedTuple):
    """One prompt with two answers and a verdict."""

    instruction: str
    dataset: str
    utility: float | None
    """preference - 1; None without a verdict."""
    reference_length: int | None
    """Characters of output_1; None if the file does not hold it."""
    length: int | None
    """Characters of output_2; None for null."""
    places: tuple[Place, ...] = ()
    """How the pair was shown; empty where no judge saw it or nobody knows."""
    is_drawn: bool = False
    """Do `places` come from AlpacaEval's draw, as the file does not record them?"""
    reply_disagrees: bool | None = None
    """Does the judge's reply name another order than the draw? None where it tells nothing."""


class Annotations(NamedTuple):
    """The rows of one model."""

    name: str
    reference: str | None
    judge: str | None
    rows: tuple[Row, ...]


def read_annotations(
    path: str | Path, generator: str | None = None, seed: int = 0, reference: str | None = None
) -> list[Annotations]:
    """The models of an annotation file, in the order in which they stand there; only `generator` if it is given.

    `seed` is that of AlpacaEval's draw of the order, `reference` the name of who wrote output_1 where the rows do not
    tell: an old file's `generator` of this name is the reference's. Raises InputError naming the row that has another
    shape.
    """
    file = Path(path).absolute()
    rows = [_with_reference(row, reference) for row in read_rows(path)]
    models = by_model(rows, file.parent.name if file.stem == "annotations" else file.stem, seed)
    kept = [model for model in models if generator in (None, model.name)]
    if not kept:
        raise InputError(f"{path}: no rows of '{generator}'", f"it holds {', '.join(m.name for m in models)}")
    return kept


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of an annotation file, each of the shape that the functions below need. Raises InputError."""
    rows = read_array(path, "annotations", SHAPE)
    for number, row in enumerate(rows):
        _check(f"annotations: {path}: row {number}", row)
    return rows


def _check(where: str, row: Any) -> None:
    if not isinstance(row, dict):
        raise InputError(f"{where} is a JSON {type(row).__name__}, no object", f"expected {SHAPE}")
    missing = [key for key in ("instruction", "output_2", "preference") if key not in row]
    if missing:
        raise InputError(f"{where} has no {' and no '.join(repr(key) for key in missing)}", f"expected {SHAPE}")
    if not isinstance(row["instruction"], str):
        raise InputError(f"{where}: 'instruction' is no text", f"expected {SHAPE}")
    for key in ("output_1", "output_2"):
        if not isinstance(row.get(key), str | None):
            raise InputError(f"{where}: '{key}' is neither text nor null", f"expected {SHAPE}")
    if not _is_preference(row["preference"]):
        raise InputError(f"{where}: 'preference' is neither a number nor null", f"expected {SHAPE}")
    orders = row.get("orders", [])
    if not isinstance(orders, list) or not all(map(_is_order, orders)):
        hint = 'one {"model_first": true or false, "preference": 1 to 2 or null} per order that was judged'
        raise InputError(f"{where}: 'orders' has another shape", hint)


def _is_preference(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _is_order(order: Any) -> bool:
    told = isinstance(order, dict) and "preference" in order and isinstance(order.get("model_first"), bool)
    return told and _is_preference(order["preference"])


def by_model(rows: Sequence[dict[str, Any]], fallback: str, seed: int = 0) -> list[Annotations]:
    """Annotations grouped by model; `fallback` names the one that the rows do not name."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_model_name(row) or fallback, []).append(row)
    return [annotations_of(group, name, seed) for name, group in groups.items()]


def annotations_of(rows: Sequence[dict[str, Any]], name: str, seed: int = 0) -> Annotations:
    """Rows of an annotation file that are all of the model `name`."""
    reference = _common(row.get("generator_1") or _old_reference(row) for row in rows)
    judge = _common(row.get("annotator") for row in rows)
    return Annotations(name, reference, judge, tuple(_row(row, seed) for row in rows))


def _model_name(row: dict[str, Any]) -> str | None:
    name = row.get("generator_2") or (None if _old_reference(row) else row.get("generator"))
    return str(name) if name else None


def _with_reference(row: dict[str, Any], reference: str | None) -> dict[str, Any]:
    """The row in the new format, where `reference` wrote output_1; as it is where that is told, or not known."""
    if reference is None or row.get("generator_1"):
        return row
    generator = row.get("generator")
    named = {} if generator in (None, reference) or "generator_2" in row else {"generator_2": generator}
    return {**row, **named, "generator_1": reference, "generator": None}


def _old_reference(row: dict[str, Any]) -> str | None:
    name = row.get("generator")
    return name if "generator_2" not in row and name in REFERENCES else None


def _common(values: Any) -> str | None:
    """The one value of all rows, all values if there are some, None if there is none."""
    found = dict.fromkeys(str(value) for value in values if value)
    return ", ".join(found) or None


def _row(row: dict[str, Any], seed: int) -> Row:
    utility = _utility(row["preference"])
    instruction, first, second = row["instruction"], row.get("output_1"), row["output_2"]
    places: tuple[Place, ...] = ()
    disagrees = None
    drawn = "orders" not in row
    if not drawn:
        shown = ((order["model_first"], _utility(order["preference"])) for order in row["orders"])
        places = tuple(Place(model_first, value) for model_first, value in shown if value is not None)
    elif utility is not None and first != second:  # AlpacaEval shows equal answers to no judge
        switched = _switched(instruction, seed)
        if switched is not None:
            places = (Place(switched, utility),)
            told = _told_first(row.get("raw_completion"))
            if told is not None and utility != 0.5:
                disagrees = (told == (utility > 0.5)) != switched
    return Row(
        instruction=instruction,
        dataset=str(row.get("dataset") or ""),
        utility=utility,
        reference_length=None if first is None else len(first),
        length=None if second is None else len(second),
        places=places,
        is_drawn=drawn and bool(places),
        reply_disagrees=disagrees,
    )


def _utility(preference: float | None) -> float | None:
    if preference is None:
        return None
    if preference == 0:
        return 0.5
    return float(preference) - 1 if 1 <= preference <= 2 else None  # NaN fails both comparisons


def _switched(instruction: str, seed: int) -> bool | None:
    try:
        return is_switched(instruction, seed)
    except UnicodeEncodeError:  # a lone surrogate cannot seed the draw
        return None


def _told_first(raw: Any) -> bool | None:
    """Did the judge choose the answer shown first? None if its reply does not say so in a way known here."""
    if isinstance(raw, dict):
        message = raw.get("message")
        raw = raw.get("text") or raw.get("content") or (message.get("content") if isinstance(message, dict) else None)
    if not isinstance(raw, str):
        return None
    first, second = len(FIRST.findall(raw)), len(SECOND.findall(raw))
    if first + second == 1:
        return first == 1
    return {"m": True, "M": False}.get(raw.strip())  # how the weighted evaluators name the two
