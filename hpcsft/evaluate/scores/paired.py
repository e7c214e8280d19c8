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
DETECTABLE_Z = NORMAL.inv_cdf(1 - ALPHA / 2) + NORMAL.inv_cdf(POWER)
"""2.80: a true difference of so many standard errors is found in 80% of the cases."""
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
    """The smallest true difference that these prompts would have shown in 80% of the cases."""
    significant: bool
    """p_holm < 5%."""


def compare(models: Sequence[Annotations], pairs: Sequence[tuple[str, str]] | None = None) -> list[Difference]:
    """The differences of `pairs` (before, after) by name; pairs without a common prompt are left out.

    Without `pairs`: each model against the first, and each with the next.
    """
    rows = {model.name: model.rows for model in models}
    names = list(rows)
    if pairs is None:
        pairs = [(names[0], name) for name in names[1:]] + list(itertools.pairwise(names[1:]))
    found = [(pair, changes) for pair in pairs if (changes := changes_between(rows[pair[0]], rows[pair[1]]))]
    p_values = [sign_flip_p(changes) for _, changes in found]
    corrected = holm(p_values)
    return [_difference(*item) for item in zip(found, p_values, corrected, strict=True)]


def _difference(found: tuple[tuple[str, str], list[float]], p_value: float, p_holm: float) -> Difference:
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
        detectable=DETECTABLE_Z * error if error else None,
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


def detectable_with(num_prompts: int) -> float:
    """The smallest difference to hope for with so many prompts, in points: a rule of thumb from before judging.

    It takes a quarter of the prompts to change their winner: 140 / sqrt(n).
    """
    return 100 * DETECTABLE_Z * TYPICAL_DEVIATION / math.sqrt(num_prompts)
