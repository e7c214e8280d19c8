"""Differences between models over the prompts that both were judged on. Pure, and the same on every machine.

p-values come from flipping the sign of each prompt's change at random (a permutation test of "the two models are
exchangeable on every prompt"), and are corrected for the number of comparisons that are shown together (S. Holm, "A
simple sequentially rejective multiple test procedure", 1979).
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Sequence

from hpcsft.evaluate.scores.annotations import Annotations, Row
from hpcsft.evaluate.scores.intervals import NORMAL, Interval, mean_interval
from hpcsft.evaluate.scores.win_rate import standard_error
from hpcsft.records import Record

ALPHA = 0.05
POWER = 0.8
NUM_FLIPS = 9999
TYPICAL_DEVIATION = 0.5
"""Standard deviation of a prompt's change where a quarter of the prompts change the winner."""


class Difference(Record):
    """`after` minus `before`, in percentage points of the win rate."""

    before: str
    after: str
    n: int
    """Prompts with a verdict in both."""
    difference: float
    standard_error: float | None
    interval: Interval | None
    """95%, bootstrap over the prompts; None if every prompt changed by the same."""
    p_value: float
    p_holm: float
    """Corrected for all comparisons that are shown together."""
    detectable: float | None
    """The true difference that these prompts find in 80% of the cases, at 5% shared by the comparisons shown (Holm's
    first and strictest level). No threshold: a smaller difference may be found with luck, a larger one missed."""
    significant: bool
    """p_holm < 5%."""


class Group(Record):
    """Models that were judged alike; with those of another group they are not compared."""

    models: list[str]
    judge: str | None
    reference: str | None


def compare(models: Sequence[Annotations], pairs: Sequence[tuple[str, str]] | None = None) -> list[Difference]:
    """The differences of `pairs` (before, after) by name; pairs without a common prompt are left out.

    Without `pairs`: among models of one judge and one reference, each against the first, and each with the next.
    """
    rows = {model.name: model.rows for model in models}
    if pairs is None:
        pairs = [pair for group in judged_alike(models) for pair in _pairs([model.name for model in group])]
    found = [(pair, changes) for pair in pairs if (changes := changes_between(rows[pair[0]], rows[pair[1]]))]
    p_values = [sign_flip_p(changes) for _, changes in found]
    corrected = holm(p_values)
    units = detectable_errors(len(found))
    return [_difference(*item, units) for item in zip(found, p_values, corrected, strict=True)]


def judged_alike(models: Sequence[Annotations]) -> list[list[Annotations]]:
    """Groups of models with the same judge and reference: only within one do differences tell something of models."""
    groups: dict[tuple[str | None, str | None], list[Annotations]] = {}
    for model in models:
        groups.setdefault((model.judge, model.reference), []).append(model)
    return list(groups.values())


def not_compared(models: Sequence[Annotations]) -> list[Group]:
    """The groups between which `compare` compares nothing; empty where all models were judged alike."""
    groups = judged_alike(models)
    if len(groups) < 2:
        return []
    return [
        Group(models=[model.name for model in group], judge=group[0].judge, reference=group[0].reference)
        for group in groups
    ]


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(names[0], name) for name in names[1:]] + list(itertools.pairwise(names[1:]))


def _difference(found: tuple[tuple[str, str], list[float]], p_value: float, p_holm: float, units: float) -> Difference:
    (before, after), changes = found
    error, interval = standard_error(changes), mean_interval(changes)
    return Difference(
        before=before,
        after=after,
        n=len(changes),
        difference=100 * statistics.fmean(changes),
        standard_error=error,
        interval=interval and (100 * interval[0], 100 * interval[1]),
        p_value=p_value,
        p_holm=p_holm,
        detectable=units * error if error else None,
        significant=p_holm < ALPHA,
    )


def changes_between(before: Sequence[Row], after: Sequence[Row]) -> list[float]:
    """Utility after minus before of every prompt with a verdict in both, joined on the instruction, sorted."""
    earlier, later = _by_prompt(before), _by_prompt(after)
    return sorted(later[prompt] - earlier[prompt] for prompt in earlier.keys() & later.keys())


def _by_prompt(rows: Sequence[Row]) -> dict[tuple[str, int], float]:
    """By instruction and how often it stood there before: a set of prompts may repeat one."""
    seen: dict[str, int] = {}
    found = {}
    for row in rows:
        count = seen[row.instruction] = seen.get(row.instruction, 0) + 1
        if row.utility is not None:
            found[row.instruction, count] = row.utility
    return found


def sign_flip_p(changes: Sequence[float]) -> float:
    """Two-sided p-value of "a change is as likely as its opposite", from NUM_FLIPS random flips and what was seen."""
    sizes = sorted(abs(change) for change in changes if change)
    observed = abs(math.fsum(changes))
    if not sizes:
        return 1.0
    # Eight signs at a time: byte b of table t is the sum of eight sizes with the signs that the bits of b give.
    tables = [_signed_sums(sizes[start : start + 8]) for start in range(0, len(sizes), 8)]
    draw = random.Random(0).randbytes
    threshold = observed - 1e-9 * (1 + observed)
    extreme = sum(abs(sum(map(list.__getitem__, tables, draw(len(tables))))) >= threshold for _ in range(NUM_FLIPS))
    return (1 + extreme) / (1 + NUM_FLIPS)


def _signed_sums(sizes: Sequence[float]) -> list[float]:
    return [math.fsum(size if bits >> place & 1 else -size for place, size in enumerate(sizes)) for bits in range(256)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected p-values, in the same order."""
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def detectable_errors(num_comparisons: int = 1) -> float:
    """A true difference of so many standard errors is found in 80% of the cases: 2.80 for one comparison."""
    return NORMAL.inv_cdf(1 - ALPHA / max(num_comparisons, 1) / 2) + NORMAL.inv_cdf(POWER)


def detectable_with(num_prompts: int) -> float:
    """The difference that so many prompts find in 80% of the cases, in points: a rule of thumb from before judging.

    It takes a quarter of the prompts to change their winner: 140 / sqrt(n).
    """
    return 100 * detectable_errors() * TYPICAL_DEVIATION / math.sqrt(num_prompts)
