"""The prompts and reference answers, in AlpacaEval's format. Pure, and light enough for a login node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpcsft.data.formats import is_unicode
from hpcsft.errors import InputError
from hpcsft.records import Record

_SHAPE = 'a JSON array of {"instruction": "...", "output": "the reference", "generator": "...", "dataset": "..."}'


class Prompt(Record):
    """An instruction and the reference's answer to it."""

    instruction: str
    output: str
    generator: str = "reference"
    dataset: str = ""


_KINDS = {dict: "an object", list: "an array", str: "a text", int: "a number", float: "a number", bool: "true or false"}
_KINDS |= {type(None): "null"}


def load_prompts(path: str | Path) -> list[Prompt]:
    """All prompts in `path`. Raises InputError naming the row when the file is not of AlpacaEval's shape."""
    rows = read_array(path, "evaluate.prompts", _SHAPE)
    prompts = [_prompt(path, number, row) for number, row in enumerate(rows)]
    seen: set[str] = set()
    for number, prompt in enumerate(prompts):
        if prompt.instruction in seen:
            hint = "answers are joined on the exact instruction, so each may stand there once"
            raise InputError(f"evaluate.prompts: {path}: row {number} repeats an instruction", hint)
        seen.add(prompt.instruction)
    return prompts


def read_array(path: str | Path, where: str, shape: str) -> list[Any]:
    """The rows of a JSON array that is not empty; InputError, which begins with `where`, tells the `shape` expected."""
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{where}: {path}: cannot be read: {error.strerror}", f"expected {shape}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: {path}: not valid JSON: {error}", f"expected {shape}") from None
    if not isinstance(rows, list) or not rows:
        found = "an empty array" if rows == [] else _KINDS[type(rows)]
        raise InputError(f"{where}: {path}: this is {found}", f"expected {shape}")
    return rows


def _prompt(path: str | Path, number: int, row: Any) -> Prompt:
    where = f"evaluate.prompts: {path}: row {number}"
    if not isinstance(row, dict):
        raise InputError(f"{where} is {_KINDS[type(row)]}, no object", f"expected {_SHAPE}")
    for key in ("instruction", "output"):
        if not isinstance(row.get(key), str) or not row[key].strip() or not is_unicode(row[key]):
            raise InputError(f"{where}: '{key}' is missing or no text", f"expected {_SHAPE}")
    return Prompt(
        instruction=row["instruction"],
        output=row["output"],
        generator=str(row.get("generator") or "reference"),
        dataset=str(row.get("dataset") or ""),
    )
