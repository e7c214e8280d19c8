"""Guards that differences are paired, that noise is called noise as often as 5% promises, and that many comparisons are
corrected for.
"""

from __future__ import annotations

import itertools
import math
import random
from statistics import NormalDist

import numpy as np
import pytest

from hpcsft.evaluate.scores import paired
from hpcsft.evaluate.scores.paired import changes_between, compare, detectable_with, holm, not_compared, sign_flip_p
from tests.evaluate.scores.made import model


def drawn(seed: int, count: int = 150) -> list[float | None]:
    generator = random.Random(seed)
    return [generator.choice([0.0, 1.0, 0.5, None, generator.random()]) for _ in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_a_difference_is_paired(seed):
    old, new = drawn(seed), drawn(seed + 100)
    both = np.array([100 * (b - a) for a, b in zip(old, new, strict=True) if a is not None and b is not None])
    later = model("epoch-1", new)
    rows = list(later.rows)
    random.Random(seed).shuffle(rows)  # joined on the instruction, not on the place
    [found] = compare([model("base", old), later._replace(rows=tuple(rows))])
    assert (found.before, found.after, found.n) == ("base", "epoch-1", len(both))
    assert found.difference == pytest.approx(both.mean(), abs=1e-9)
    error = both.std(ddof=1) / math.sqrt(len(both))
    assert found.standard_error == pytest.approx(error, abs=1e-9)
    assert found.detectable == pytest.approx((1.959963985 + 0.841621234) * error, abs=1e-6)
    assert found.interval[0] < found.difference < found.interval[1]
    assert found.significant == (found.p_holm < 0.05)


def test_pairs_are_from_the_first_and_from_one_to_the_next():
    models = [model(name, [0.0, 1.0]) for name in ("base", "epoch-1", "epoch-2")]
    expected = [("base", "epoch-1"), ("base", "epoch-2"), ("epoch-1", "epoch-2")]
    assert [(d.before, d.after) for d in compare(models)] == expected
    assert [(d.before, d.after) for d in compare(models, expected[2:])] == expected[2:]
    assert compare(models[:1]) == []


def test_the_sign_of_a_difference():
    low, high = model("a", [0.0] * 9 + [1.0]), model("b", [1.0] * 9 + [0.5])
    [better], [worse] = compare([low, high]), compare([high, low])
    assert better.difference == -worse.difference == pytest.approx(85)
    assert better.p_value == worse.p_value < 0.01 and better.significant and worse.significant


def test_pairing_sees_what_separate_errors_hide():
    """Both models vary by 50 points between prompts; every prompt moved by nearly the same 4."""
    old = [0.96 * (n % 2) for n in range(100)]
    new = [u + 0.04 * (0.5 + (n % 3) / 2) for n, u in enumerate(old)]
    [found] = compare([model("a", old), model("b", new)])
    assert found.significant and found.detectable < found.difference < 5


def test_a_repeated_instruction_is_paired_in_turn():
    rows = [row._replace(instruction="same") for row in model("a", [0.0, 1.0, None, 0.5]).rows]
    later = [row._replace(instruction="same") for row in model("b", [1.0, 1.0, 1.0, 0.0]).rows]
    assert changes_between(rows, later) == [-0.5, 0.0, 1.0]


def test_nothing_in_common_is_no_difference():
    assert compare([model("a", []), model("b", [1.0])]) == []
    assert compare([model("a", [None, 1.0]), model("b", [1.0, None])]) == []
    [alone] = compare([model("a", [0.0]), model("b", [1.0])])
    assert (alone.n, alone.difference, alone.standard_error, alone.interval) == (1, 100, None, None)
    assert (alone.p_value, alone.detectable, alone.significant) == (1, None, False)


def test_no_change_is_noise_and_the_same_change_everywhere_is_not():
    [same] = compare([model("a", [0.0, 1.0, 0.5]), model("b", [0.0, 1.0, 0.5])])
    assert (same.difference, same.p_value, same.significant, same.interval) == (0, 1, False, None)
    [all_better] = compare([model("a", [0.0] * 50), model("b", [1.0] * 50)])
    assert all_better.significant and all_better.p_value == 1 / 10_000


def exact_p(changes: list[float]) -> float:
    """Over every choice of signs."""
    sums = [
        abs(sum(s * c for s, c in zip(signs, changes, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(changes))
    ]
    return sum(s >= abs(sum(changes)) - 1e-12 for s in sums) / len(sums)


@pytest.mark.parametrize("seed", range(4))
def test_p_values_are_those_of_all_sign_flips(seed):
    generator = random.Random(seed)
    changes = [generator.choice([0.5, -0.5, 1.0, 0.25, generator.uniform(-1, 1)]) for _ in range(11)]
    exact = exact_p(changes)
    assert sign_flip_p(changes) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9999) + 2e-4)
    assert sign_flip_p(changes) == sign_flip_p(changes[::-1]) == sign_flip_p([-c for c in changes])


def test_where_nothing_differs_p_is_uniform(monkeypatch):
    monkeypatch.setattr(paired, "NUM_FLIPS", 199)
    p_values = []
    for seed in range(400):
        generator = random.Random(seed)
        p_values.append(sign_flip_p([generator.gauss(0, 1) for _ in range(30)]))
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.035)
    deciles = np.histogram(p_values, bins=10, range=(0, 1))[0]
    assert deciles.min() >= 20 and deciles.max() <= 64  # 40 each, within four standard deviations


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R's p.adjust
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_comparisons_that_are_shown_together_are_corrected_together():
    generator = random.Random(0)
    models = [model("base", [0.5] * 40)]
    models += [model(f"m{n}", [0.5 + generator.choice([0.25, -0.2, 0.3]) for _ in range(40)]) for n in range(3)]
    found = compare(models)
    assert [d.p_holm for d in found] == holm([d.p_value for d in found])
    assert any(d.p_holm > d.p_value for d in found)
    z = NormalDist().inv_cdf(1 - 0.05 / 5 / 2) + NormalDist().inv_cdf(0.8)  # so is what they can find
    assert [d.detectable for d in found] == pytest.approx([z * d.standard_error for d in found])


def test_what_is_detectable_is_found_in_four_of_five_cases(monkeypatch):
    monkeypatch.setattr(paired, "NUM_FLIPS", 399)
    generator, found = random.Random(3), 0
    for _ in range(200):
        changes = [generator.gauss(0.2802, 1) / 10 for _ in range(100)]  # 2.802 standard errors
        found += sign_flip_p(changes) < 0.05
    assert found / 200 == pytest.approx(0.8, abs=0.085)


def test_only_models_of_one_judge_and_one_reference_are_compared():
    ours, theirs = [model(name, [0.0, 1.0]) for name in "ab"], [model(name, [1.0, 0.0]) for name in "cd"]
    other_reference = model("e", [1.0, 1.0])._replace(reference="gpt4_turbo")
    models = [ours[0], *(m._replace(judge="gpt-4") for m in theirs), other_reference, ours[1]]
    assert [(d.before, d.after) for d in compare(models)] == [("a", "b"), ("c", "d")]
    assert [(g.models, g.judge, g.reference) for g in not_compared(models)] == [
        (["a", "b"], "judge", "reference"),
        (["c", "d"], "gpt-4", "reference"),
        (["e"], "judge", "gpt4_turbo"),
    ]
    assert not_compared(ours) == not_compared([]) == []


def test_what_can_be_hoped_for_goes_with_the_root_of_the_prompts():
    assert detectable_with(805) == pytest.approx(4.94, abs=0.01)
    assert detectable_with(32) == pytest.approx(24.76, abs=0.01)
