"""Guards the intervals: they hold the truth as often as they say, and are the same for every order of the rows."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from hpcsft.evaluate.scores import intervals
from hpcsft.evaluate.scores.intervals import mean_interval, share_interval


def coin(seed: int, n: int, share: float) -> list[float]:
    generator = random.Random(seed)
    return [float(generator.random() < share) for _ in range(n)]


def test_a_large_sample_has_the_normal_interval():
    values = coin(1, 600, 0.3)
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(600)
    low, high = mean_interval(values)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.15 * error)


def test_the_interval_holds_the_truth_as_often_as_it_says(monkeypatch):
    """Of weighted verdicts; of hard ones it holds more often, for their means lie on a grid."""
    monkeypatch.setattr(intervals, "NUM_RESAMPLES", 1000)
    generator = random.Random(7)
    found = [share_interval([generator.random() ** 3 for _ in range(40)]) for _ in range(300)]
    held = sum(low <= 0.25 <= high for low, high in found) / len(found)
    assert 0.91 <= held <= 0.98


def test_a_skewed_sample_has_a_skewed_interval():
    values = [1.0] * 4 + [0.0] * 60
    low, high = mean_interval(values)
    assert high - 4 / 64 > 1.2 * (4 / 64 - low) > 0


def test_it_is_the_same_for_any_order_and_every_time():
    values = [*coin(3, 50, 0.4), 0.25, 0.75]
    shuffled = random.Random(9).sample(values, len(values))
    assert mean_interval(values) == mean_interval(shuffled) == mean_interval(values)
    assert mean_interval([0.0] * 6 + [1.0] * 4) == (0.1, 0.8)  # of this version, on any machine


@pytest.mark.parametrize(("values", "low", "high"), [([0.0] * 32, 0, 0.1072), ([1.0] * 32, 0.8928, 1)])
def test_where_all_are_alike_there_is_still_doubt(values, low, high):
    assert share_interval(values) == pytest.approx((low, high), abs=1e-4)  # Wilson's, from tables
    assert mean_interval(values) is None


@pytest.mark.parametrize("values", [[], [0.3], [0.5] * 20, [0.25] * 3])
def test_one_value_and_nothing_but_draws_tell_nothing(values):
    assert mean_interval(values) is None and share_interval(values) is None
