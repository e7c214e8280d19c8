"""Bootstrap confidence intervals of a mean. Pure, and the same on every machine.

The interval is BCa (B. Efron, "Better bootstrap confidence intervals", 1987). Values are sorted first, so that it does
not depend on the order of the rows.
"""

from __future__ import annotations

import math
import random
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

NUM_RESAMPLES = 4000
LEVEL = 0.95
NORMAL = statistics.NormalDist()
Z = NORMAL.inv_cdf(0.5 + LEVEL / 2)

Interval = tuple[float, float]


def mean_interval(values: Sequence[float]) -> Interval | None:
    """95% interval of the mean of `values`, in their unit; None if they are fewer than two or all alike."""
    if len(values) < 2 or min(values) == max(values):
        return None
    values = sorted(values)
    n, mean = len(values), statistics.fmean(values)
    choices = random.Random(0).choices
    means = sorted(math.fsum(choices(values, k=n)) / n for _ in range(NUM_RESAMPLES))
    tolerance = 1e-12 * (1 + abs(mean))
    below, upto = bisect_left(means, mean - tolerance), bisect_right(means, mean + tolerance)
    share = min(max((below + upto) / 2, 0.5), NUM_RESAMPLES - 0.5) / NUM_RESAMPLES  # ties count half
    bias = NORMAL.inv_cdf(share)
    deviations = [value - mean for value in values]
    acceleration = math.fsum(d**3 for d in deviations) / (6 * math.fsum(d * d for d in deviations) ** 1.5)
    return _quantile(means, bias, acceleration, -Z), _quantile(means, bias, acceleration, Z)


def _quantile(means: Sequence[float], bias: float, acceleration: float, z: float) -> float:
    shifted = NORMAL.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
    return means[min(int(shifted * len(means)), len(means) - 1)]


def share_interval(values: Sequence[float]) -> Interval | None:
    """95% interval of the mean of values in [0, 1]; Wilson's where all are 0 or all are 1.

    None if they are fewer than two, or all alike elsewhere: neither resampling nor counting tells anything there.
    """
    if len(values) > 1 and min(values) == max(values) in (0, 1):
        return _wilson(values[0], len(values))
    return mean_interval(values)


def _wilson(share: float, n: int) -> Interval:
    """E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927."""
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
