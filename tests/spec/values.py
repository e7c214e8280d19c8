"""Specs for these tests: as small as they may be, changed in one place."""

from __future__ import annotations

import copy
from typing import Any


def minimal(**sections: Any) -> dict[str, Any]:
    """A spec with only what has no default, and `sections` over it. Its files need not exist: parsing never looks."""
    return {"model": {"path": "m"}, "data": {"train": ["d.jsonl"]}, **sections}


def changed(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `values` with `value` at the dotted `path`."""
    result = copy.deepcopy(values)
    *parents, last = path.split(".")
    node = result
    for part in parents:
        node = node.setdefault(part, {})
    node[last] = value
    return result
