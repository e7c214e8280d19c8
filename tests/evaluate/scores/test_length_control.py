"""Guards the win rates at equal length: against numpy's own fit, against what made the data, and undefined where a
number would be an accident.
"""

from __future__ import annotations

import csv
import json
import math
import random

import numpy as np
import pytest

from hpcsft.errors import InputError
from hpcsft.evaluate.scores import length_control, logistic
from hpcsft.evaluate.scores.annotations import Annotations, Row
from hpcsft.evaluate.scores.length_control import Difficulty, length_controlled, length_only, read_difficulty
from tests.evaluate.scores.made import model


def biased(seed: int, count: int, by_length: float, offset: float, weighted: bool = False) -> list[Row]:
    """Verdicts of a judge that goes by length: sigmoid(by_length tanh(D / 600) + offset)."""
    generator = random.Random(seed)
    utilities, lengths = [], []
    for _ in range(count):
        pair = generator.randint(50, 1500), generator.randint(50, 2500)
        chance = 1 / (1 + math.exp(-(by_length * math.tanh((pair[0] - pair[1]) / 600) + offset)))
        utilities.append(chance if weighted else float(generator.random() < chance))
        lengths.append(pair)
    return list(model("m", utilities, lengths).rows)


def fit_by_numpy(x: np.ndarray, y: np.ndarray, sizes: np.ndarray | float = 1.0) -> np.ndarray:
    w = np.zeros(x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-x @ w))
        w -= np.linalg.solve((x * (sizes * p * (1 - p))[:, None]).T @ x, x.T @ (sizes * (p - y)))
    return w


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weighted", [True, False])
def test_the_length_only_rate_is_the_fit_at_equal_length(seed, weighted):
    rows = biased(seed, 150, -1.5, -0.5, weighted)
    rows[3] = rows[3]._replace(utility=None)  # its length counts for the deviation, its verdict for nothing
    delta = np.array([row.reference_length - row.length for row in rows], dtype=float)
    used = np.array([row.utility is not None for row in rows])
    x = np.stack([np.tanh(delta / delta.std(ddof=1)), np.ones(len(rows))], axis=1)[used]
    y = np.array([row.utility for row in rows if row.utility is not None])
    w = fit_by_numpy(x, y)
    p = 1 / (1 + np.exp(-x @ w))
    bread = np.linalg.inv((x * (p * (1 - p))[:, None]).T @ x)
    error = math.sqrt((bread @ ((x * ((p - y) ** 2)[:, None]).T @ x) @ bread)[1, 1])
    rate = 1 / (1 + math.exp(-w[1]))
    found = length_only(rows)
    assert found.rate == pytest.approx(100 * rate, abs=1e-9)
    assert found.standard_error == pytest.approx(100 * rate * (1 - rate) * error, abs=1e-9)
    assert found.undefined is None


def test_the_rate_of_long_answers_falls_for_a_judge_that_likes_length():
    rows = biased(1, 800, -3.0, 0.0)
    win_rate = 100 * np.mean([row.utility for row in rows])
    found = length_only(rows)
    assert win_rate > 65 and found.rate == pytest.approx(50, abs=3 * found.standard_error)


def test_its_standard_error_is_the_spread_of_the_rate():
    found = [length_only(biased(seed, 200, -1.0, -0.3)) for seed in range(150)]
    spread = np.std([f.rate for f in found], ddof=1)
    assert np.mean([f.standard_error for f in found]) == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (biased(1, 9, -1, 0), "fewer than 10 rows"),
        (model("m", [None] * 20 + [1.0] * 9).rows, "fewer than 10 rows"),
        ([row._replace(reference_length=None) for row in biased(1, 30, -1, 0)], "fewer than 10 rows"),
        (model("m", [0.0, 1.0] * 10).rows, "all lengths differ by the same"),
        ([row._replace(utility=1.0) for row in biased(1, 50, -1, 0)], "decides every verdict"),
        ([row._replace(utility=float(row.length > 900)) for row in biased(1, 50, -1, 0)], None),
        (
            [row._replace(utility=float(row.length > row.reference_length)) for row in biased(1, 50, -1, 0)],
            "length alone, or nothing, decides every verdict",
        ),
    ],
)
def test_where_it_is_undefined_it_says_why(rows, reason):
    found = length_only(rows)
    assert (
        (found.rate is None) == (found.standard_error is None) == (found.undefined is not None) == (reason is not None)
    )
    assert reason is None or reason in found.undefined


def test_an_l1_penalty_pulls_weights_to_zero_and_holds_its_optimum():
    generator = random.Random(0)
    columns = [[generator.gauss(0, 1) for _ in range(80)] for _ in range(3)]
    targets = [1 / (1 + math.exp(-2 * x)) for x in columns[0]]
    sizes = [generator.choice([1.0, 0.1]) for _ in range(80)]
    weights = logistic.fit(columns, targets, sizes, l1=2.0)
    gradient = logistic.gradient_of(columns, targets, sizes, logistic.predicted(columns, weights))
    assert weights[0] > 0.1
    for weight, slope in zip(weights, gradient, strict=True):  # of a minimum with |w|
        assert abs(slope) <= 2.0 + 1e-6 and (weight == 0 or slope == pytest.approx(-math.copysign(2.0, weight)))
    assert logistic.fit(columns, targets, sizes, l1=1e6) == [0.0] * 3
    assert logistic.fit(columns, targets, sizes) == pytest.approx([2.0, 0.0, 0.0], abs=1e-6)


def test_a_singular_system_has_no_solution():
    assert logistic.solve([[1.0, 2.0], [2.0, 4.0]], [1.0, 1.0]) is None
    assert logistic.solve([[0.0, 2.0], [3.0, 4.0]], [2.0, 10.0]) == [2.0, 1.0]


def alpaca_rows(difficulty: list[float], offset: float) -> list[Row]:
    """805 rows that the formula made, with a judge that likes length."""
    generator = random.Random(11)
    rows = []
    for place, hard in enumerate(difficulty):
        pair = generator.randint(100, 3000), generator.randint(50, 3500)
        value = -0.8 * math.tanh((pair[0] - pair[1]) / 1310) + 0.5 * hard + offset
        rows.append(Row(f"q{place}", "", 1 / (1 + math.exp(-value)), *pair))
    return rows


@pytest.fixture(scope="module")
def difficulty() -> list[float]:
    generator = random.Random(5)
    return [generator.gauss(0, 1) for _ in range(805)]


def test_the_length_controlled_rate_is_the_mean_over_the_difficulties(difficulty):
    rows = alpaca_rows(difficulty, -0.7)
    expected = np.mean([1 / (1 + math.exp(-(0.5 * hard - 0.7))) for hard in difficulty])
    judged = Annotations("m", "gpt4_1106_preview", None, tuple(rows))
    found = length_controlled(judged, Difficulty(dict(enumerate(difficulty)), []))
    assert found.rate == pytest.approx(100 * expected, abs=0.2)
    assert 0 < found.standard_error < 1 and found.undefined is None


def test_gamed_answers_take_part_with_a_tenth_of_the_weight(difficulty, monkeypatch):
    monkeypatch.setattr(length_control, "PENALTIES", (1e-7,))  # as good as none: the best fit is numpy's
    generator = random.Random(2)
    gamed = [
        (length, hard, 1 / (1 + math.exp(-(2.0 * length + 0.1 * hard + generator.gauss(0, 0.3)))))
        for hard in difficulty
        for length in (-0.9, 0.9)
    ]
    rows = [row._replace(utility=generator.random()) for row in alpaca_rows(difficulty, 0.4)]
    rows = [row._replace(utility=0.7 * row.utility + 0.3 * (row.length > 1800)) for row in rows]
    delta = np.array([row.reference_length - row.length for row in rows], dtype=float)
    own = np.stack([np.tanh(delta / delta.std(ddof=1)), difficulty, np.ones(805)], axis=1)
    x = np.concatenate([own, [(length, hard, 0.0) for length, hard, _ in gamed]])
    y = np.concatenate([[row.utility for row in rows], [utility for *_, utility in gamed]])
    found = length_controlled(
        Annotations("m", "gpt4_1106_preview", None, tuple(rows)), Difficulty(dict(enumerate(difficulty)), gamed)
    )

    def rate(weight: float) -> float:
        w = fit_by_numpy(x, y, np.concatenate([np.ones(805), np.full(len(gamed), weight)]))
        return 100 * float(np.mean(1 / (1 + np.exp(-(own * [0, 1, 1]) @ w))))

    assert found.rate == pytest.approx(rate(0.1), abs=1e-5)
    assert abs(rate(0.2) - rate(0.1)) > 1e-2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m._replace(rows=m.rows[:-1]), "804 rows; it is defined for AlpacaEval's 805"),
        (lambda m: m._replace(reference="text_davinci_003"), "reference text_davinci_003; it is defined against gpt4_"),
        (lambda m: m._replace(rows=tuple(r._replace(utility=None) for r in m.rows)), "too few verdicts"),
        (
            lambda m: m._replace(rows=tuple(r._replace(length=1, reference_length=2) for r in m.rows)),
            "lengths that all",
        ),
    ],
)
def test_elsewhere_it_is_not_defined(difficulty, change, reason):
    judged = Annotations("m", "gpt4_1106_preview", None, tuple(alpaca_rows(difficulty, 0.0)))
    found = length_controlled(change(judged), Difficulty(dict(enumerate(difficulty)), []))
    assert found.rate is None and reason in found.undefined


def test_difficulties_are_read_from_alpaca_evals_own_files(difficulty, tmp_path):
    plain = tmp_path / "instruction_difficulty.csv"
    with open(plain, "w", newline="") as file:
        csv.writer(file).writerows([("", "instruction_difficulty"), *enumerate(difficulty)])
    gamed = tmp_path / "df_gamed.csv"
    with open(gamed, "w", newline="") as file:
        header = ("model", "index", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline")
        rows = [(m, i, "" if i == 3 else 0.25, 2.0, d, False) for m in "ab" for i, d in enumerate(difficulty)]
        csv.writer(file).writerows([header, *rows])
    as_json = tmp_path / "difficulty.json"
    as_json.write_text(json.dumps(dict(enumerate(difficulty))))
    found = [read_difficulty(path) for path in (plain, gamed, as_json)]
    assert [list(f.by_place.values()) for f in found] == [difficulty] * 3
    assert [len(f.gamed) for f in found] == [0, 2 * 804, 0]
    assert found[1].gamed[0] == (math.tanh(2.0), difficulty[0], 0.25)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.json", "{", "not valid JSON: "),
        ("d.json", '[{"index": 1}]', "a row has another shape"),
        ("d.json", "[3]", "a row has another shape"),
        ("d.csv", "index,instruction_difficulty\n1,x\n", "a row has another shape"),
        ("d.csv", "index,instruction_difficulty\n0,1.5\n", "difficulties of 1 instructions, not of places 0 to 804"),
    ],
)
def test_other_files_are_no_difficulties(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_difficulty(tmp_path / name)


def test_a_difficulty_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"--difficulty .*gone\.csv: cannot be read: No such file"):
        read_difficulty(tmp_path / "gone.csv")
