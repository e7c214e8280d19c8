"""Guards the numbers in the table: every formula against numpy or the statistics module, and what the formulas must not
see (no verdict, NaN, out of range) left out and counted.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from typing import Any

import numpy as np
import pytest

from hpcsft.evaluate.scores import compare, position_bias, score

NAN = float("nan")


def rows_of(preferences: list[Any], lengths: list[int] | None = None) -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"question {number}",
            "output_2": "é" * (lengths[number] if lengths else 7),
            "preference": preference,
        }
        for number, preference in enumerate(preferences)
    ]


def drawn(seed: int, count: int = 400) -> list[Any]:
    """Preferences as judges give them, with draws, and with everything that is none."""
    generator = random.Random(seed)
    kinds = [1.0, 2.0, 1, 2, 1.5, None, NAN, 0.0, 3.0, 2.0000001, "likelihood"]
    chosen = [generator.choice(kinds) for _ in range(count)]
    return [1 + generator.random() if kind == "likelihood" else kind for kind in chosen]


def kept_by_hand(preferences: list[Any]) -> np.ndarray:
    return np.array([p - 1 for p in preferences if p is not None and p == p and 1 <= p <= 2], dtype=np.float64)


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_alpaca_evals(seed):
    preferences = drawn(seed)
    lengths = [random.Random(f"{seed}/{n}").randrange(0, 3000) for n in range(len(preferences))]
    scores = score(rows_of(preferences, lengths))
    u = kept_by_hand(preferences)
    assert 0 < len(u) < len(preferences)
    assert scores.win_rate == pytest.approx(100 * np.mean(u), abs=1e-9)
    assert scores.standard_error == pytest.approx(100 * np.std(u, ddof=1) / np.sqrt(len(u)), abs=1e-9)
    wins, draws, losses = int((u > 0.5).sum()), int((u == 0.5).sum()), int((u < 0.5).sum())
    assert (scores.n_wins, scores.n_draws, scores.n_wins_base) == (wins, draws, losses)
    assert min(wins, draws, losses) > 0
    assert scores.n_total == len(u)
    assert scores.n_unparsed == len(preferences) - len(u)
    rounded = np.where(u == 0.5, 0.5, (u > 0.5).astype(float))
    assert scores.discrete_win_rate == pytest.approx(100 * np.mean(rounded), abs=1e-9)
    assert scores.avg_length == math.floor(np.mean(lengths))  # of all outputs, judged or not


def test_the_edges_of_the_range_count_and_what_lies_beyond_does_not():
    scores = score(rows_of([1.0, 2.0, 0.999999, 2.000001, NAN, None, float("inf")]))
    assert (scores.n_total, scores.n_wins, scores.n_wins_base, scores.n_unparsed) == (2, 1, 1, 5)
    assert scores.win_rate == 50


def test_text_is_no_preference():
    assert score(rows_of(["2.0", 1.0])).n_total == 1


@pytest.mark.parametrize(("preferences", "win_rate"), [([], None), ([None, NAN], None), ([1.25], 25.0)])
def test_too_few_verdicts_give_no_number_instead_of_nan(preferences, win_rate):
    scores = score(rows_of(preferences))
    assert scores.win_rate == win_rate and scores.standard_error is None
    assert scores.avg_length == (7 if preferences else None)
    json.dumps(scores.model_dump(), allow_nan=False)


def orders(*given: tuple[bool, float | None]) -> dict[str, Any]:
    return {"orders": [{"model_first": first, "preference": value, "raw": ""} for first, value in given]}


@pytest.mark.parametrize("seed", range(3))
def test_position_bias_is_told_by_place(seed):
    generator = random.Random(seed)
    given = [(generator.random() < 0.3, generator.choice([1.0, 2.0, 1.25, None])) for _ in range(300)]
    rows = [orders(*given[start : start + 2]) for start in range(0, 300, 2)]
    first = [p - 1 for place, p in given if place and p is not None]
    second = [p - 1 for place, p in given if not place and p is not None]
    bias = position_bias([*rows, {"instruction": "without orders"}])
    assert bias.first == pytest.approx(100 * statistics.fmean(first), abs=1e-9)
    assert bias.second == pytest.approx(100 * statistics.fmean(second), abs=1e-9)
    chosen = 100 * statistics.fmean(first + [1 - u for u in second])
    assert bias.chosen_first == pytest.approx(chosen, abs=1e-9)


def test_a_judge_that_always_takes_the_first_is_seen():
    bias = position_bias([orders((True, 2.0), (False, 1.0))] * 4)
    assert (bias.first, bias.second, bias.chosen_first) == (100, 0, 100)
    fair = position_bias([orders((True, 2.0), (False, 2.0)), orders((True, 1.0), (False, 1.0))])
    assert (fair.first, fair.second, fair.chosen_first) == (50, 50, 50)
    nothing = position_bias([])
    assert (nothing.first, nothing.second, nothing.chosen_first) == (None, None, None)


@pytest.mark.parametrize("seed", range(5))
def test_a_difference_is_paired(seed):
    old, new = drawn(seed), drawn(seed + 100)
    both = [
        100 * (b - a)
        for a, b in zip(old, new, strict=True)
        if len(kept_by_hand([a])) and len(kept_by_hand([b]))
    ]  # fmt: skip
    rows = rows_of(new)
    random.Random(seed).shuffle(rows)  # joined on the instruction, not on the place
    found = compare("base", rows_of(old), "epoch-1", rows)
    assert found is not None and 0 < len(both) < len(old)
    assert (found.before, found.after) == ("base", "epoch-1")
    assert found.difference == pytest.approx(np.mean(both), abs=1e-9)
    error = np.std(both, ddof=1) / np.sqrt(len(both))
    assert found.standard_error == pytest.approx(error, abs=1e-9)
    assert found.z == pytest.approx(np.mean(both) / error, abs=1e-9)
    assert found.significant == (abs(np.mean(both) / error) >= 1.96)


def test_the_sign_of_a_difference_and_what_is_noise():
    better = compare("a", rows_of([1.0] * 9 + [2.0]), "b", rows_of([2.0] * 9 + [1.5]))
    worse = compare("b", rows_of([2.0] * 9 + [1.5]), "a", rows_of([1.0] * 9 + [2.0]))
    assert better and worse
    assert better.difference == -worse.difference == pytest.approx(85)
    assert better.significant and worse.significant and (better.z or 0) > 0 > (worse.z or 0)
    noise = compare("a", rows_of([1.0, 2.0] * 10), "b", rows_of([2.0, 1.0] * 10))
    assert noise and noise.difference == 0 and not noise.significant


def test_pairing_sees_what_separate_errors_hide():
    """Both checkpoints vary by 50 points between prompts; every prompt moved by nearly the same 4."""
    old = [1.0 + 0.96 * (n % 2) for n in range(100)]
    new = [p + 0.04 * (0.5 + (n % 3) / 2) for n, p in enumerate(old)]
    found, errors = (
        compare("a", rows_of(old), "b", rows_of(new)),
        [score(rows_of(p)).standard_error for p in (old, new)],
    )
    assert found and found.significant
    assert all(error and error > found.difference for error in errors)


def test_nothing_in_common_is_no_difference():
    assert compare("a", [], "b", rows_of([1.0])) is None
    assert compare("a", rows_of([None, 1.0]), "b", rows_of([1.0, NAN])) is None
    alone = compare("a", rows_of([1.0]), "b", rows_of([2.0]))
    assert alone and (alone.difference, alone.standard_error, alone.z, alone.significant) == (100, None, None, False)


def test_no_change_at_all_is_noise():
    same = compare("a", rows_of([1.0, 2.0, 1.5]), "b", rows_of([1.0, 2.0, 1.5]))
    assert same and (same.difference, same.standard_error, same.z, same.significant) == (0, 0, None, False)


def test_the_same_change_everywhere_is_no_noise():
    found = compare("base", rows_of([1.0] * 50), "epoch-1", rows_of([2.0] * 50))
    assert found and found.difference == 100 and found.significant
