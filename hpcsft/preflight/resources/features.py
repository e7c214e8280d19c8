"""Constraints: which nodes have the features that a job asks for. Pure, and only for simple expressions."""

from __future__ import annotations

import re
from collections.abc import Collection

SIMPLE = re.compile(r"[\w.:-]+(?:[&|,][\w.:-]+)*")


def features_of(constraint: str) -> list[str] | None:
    """The features that are named in `a`, `a&b`, `a|b`; None for counts, brackets and the like.

    >>> features_of("a100&ib"), features_of("[rack1|rack2]")
    (['a100', 'ib'], None)
    """
    return re.split(r"[&|,]", constraint) if SIMPLE.fullmatch(constraint) else None


def satisfies(features: Collection[str], constraint: str | None) -> bool:
    """Does a node with `features` meet the constraint? Taken from left to right, as Slurm does; a comma is an and.

    What is not simple counts as met: only Slurm knows.
    """
    if constraint is None or features_of(constraint) is None:
        return True
    first, *rest = re.split(r"([&|,])", constraint)
    met = first in features
    for sign, feature in zip(rest[::2], rest[1::2], strict=True):
        met = met or feature in features if sign == "|" else met and feature in features
    return met
