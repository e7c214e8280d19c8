"""Hints that name what there is instead of a name that there is not. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST = 12
"""Names that a hint lists."""


def instead(given: str, names: Iterable[str], there_are: str = "there are") -> str:
    """`did you mean X? there are X, Y, Z`; with nothing near, only what there is."""
    known = sorted(set(names))
    if not known:
        return "there is none"
    near = difflib.get_close_matches(given.lower(), [name.lower() for name in known], n=1)
    mean = [f"did you mean {name}? " for name in known if near and name.lower() == near[0]][:1]
    return f"{''.join(mean)}{there_are} {listed(known)}"


def listed(names: Iterable[str]) -> str:
    """Names with commas between them; of many only the first.

    >>> listed(["low", "high"])
    'low, high'
    """
    known = list(names)
    more = f" and {len(known) - MOST} more" if len(known) > MOST else ""
    return ", ".join(known[:MOST]) + more
