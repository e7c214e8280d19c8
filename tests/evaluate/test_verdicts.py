"""Guards that a verdict counts for the right side: the order in which answers are shown is AlpacaEval's, undone when a
preference is made, and every verdict's key holds all that decided it.
"""

from __future__ import annotations

import random

import pytest

from hpcsft.evaluate.prompts import Prompt
from hpcsft.evaluate.verdicts import Comparison, Verdict, annotations, comparisons, is_switched, preference

PROMPTS = [Prompt(instruction=f"question {n}", output=f"reference {n}", generator="ref", dataset="d") for n in range(6)]
OUTPUTS = [f"model {n}" for n in range(5)] + ["reference 5"]
"""The last answer equals its reference."""


def test_the_order_is_drawn_as_alpaca_eval_draws_it(conversations):
    """random.choices over two values is the first one when random() < 0.5 (Python's documentation of `choices`)."""
    instructions = sorted({texts[0] for texts in conversations})
    drawn = [is_switched(instruction) for instruction in instructions]
    assert drawn == [random.Random(f"is_switched_outputs{text}0").random() >= 0.5 for text in instructions]
    assert 0.4 < sum(drawn) / len(drawn) < 0.6
    other = [is_switched(instruction, seed=1) for instruction in instructions]
    assert other == [random.Random(f"is_switched_outputs{text}1").random() >= 0.5 for text in instructions]


def shown(orders: str) -> list[tuple[int, bool, str, str]]:
    return [(c.row, c.model_first, c.first, c.second) for c in comparisons(PROMPTS, OUTPUTS, orders)]


def test_both_orders_show_every_pair_twice():
    expected = []
    for row in range(5):
        reference, model = f"reference {row}", f"model {row}"
        expected += [(row, False, reference, model), (row, True, model, reference)]
    assert shown("both") == expected
    assert [c.instruction for c in comparisons(PROMPTS, OUTPUTS, "both")][::2] == [p.instruction for p in PROMPTS[:5]]


def test_one_order_shows_every_pair_once():
    assert shown("reference_first") == [(row, False, f"reference {row}", f"model {row}") for row in range(5)]
    drawn = shown("random")
    assert [entry[1] for entry in drawn] == [is_switched(f"question {row}") for row in range(5)]
    assert {entry[1] for entry in drawn} == {False, True}
    again = [entry.model_first for entry in comparisons(PROMPTS, OUTPUTS, "random", seed=1)]
    assert again == [is_switched(f"question {row}", seed=1) for row in range(5)] != [entry[1] for entry in drawn]
    for row, model_first, first, second in drawn:
        assert (first, second) == ((f"model {row}", f"reference {row}")[:: 1 if model_first else -1])


@pytest.mark.parametrize(
    ("model_first", "first_better", "expected"),
    [(True, 1.0, 2.0), (True, 0.0, 1.0), (False, 1.0, 1.0), (False, 0.0, 2.0), (True, 0.7, 1.7), (False, 0.7, 1.3)],
)
def test_a_preference_is_for_the_model_wherever_it_stood(model_first, first_better, expected):
    comparison = Comparison(0, model_first, "i", "a", "b")
    assert preference(comparison, Verdict(first_better, "")) == pytest.approx(expected, abs=1e-12)
    assert preference(comparison, Verdict(None, "")) is None


def annotated(verdicts: dict[tuple[int, bool], float | None], orders: str = "both") -> list[dict]:
    pairs = comparisons(PROMPTS, OUTPUTS, orders)
    judged = [(pair, Verdict(verdicts[pair.row, pair.model_first], f"said {pair.row}")) for pair in pairs]
    return annotations(PROMPTS, OUTPUTS, judged[::-1], "run/epoch-1", "judge")  # in whatever order they came


def test_annotations_are_alpaca_evals():
    always_first = {(row, model_first): 1.0 for row in range(5) for model_first in (False, True)}
    rows = annotated(always_first)
    assert [row["instruction"] for row in rows] == [prompt.instruction for prompt in PROMPTS]
    first = rows[0]
    assert (first["output_1"], first["generator_1"]) == ("reference 0", "ref")
    assert (first["output_2"], first["generator_2"]) == ("model 0", "run/epoch-1")
    assert (first["dataset"], first["annotator"]) == ("d", "judge")
    assert [row["preference"] for row in rows] == [1.5] * 6  # a judge that looks at the order only says nothing
    assert first["orders"] == [
        {"model_first": False, "preference": 1.0, "raw": "said 0"},
        {"model_first": True, "preference": 2.0, "raw": "said 0"},
    ]


def test_the_preference_is_the_mean_of_both_orders():
    verdicts = {(row, model_first): 0.0 for row in range(5) for model_first in (False, True)}
    verdicts |= {
        (0, False): 0.0, (0, True): 1.0,  # the model, both times
        (1, False): 1.0, (1, True): 0.0,  # the reference, both times
        (2, False): 0.25, (2, True): 0.75,
        (3, False): None, (3, True): 1.0,  # one order without a verdict is no verdict
        (4, False): 0.3, (4, True): 0.3,  # draws stay draws, however floating point adds
    }  # fmt: skip
    assert [row["preference"] for row in annotated(verdicts)] == [2.0, 1.0, 1.75, None, 1.5, 1.5]


def test_an_equal_answer_is_a_draw_that_nobody_was_asked_about():
    assert 5 not in {pair.row for pair in comparisons(PROMPTS, OUTPUTS, "both")}
    rows = annotations(PROMPTS, OUTPUTS, [], "g", "j")
    assert (rows[5]["preference"], rows[5]["orders"]) == (1.5, [])
    assert [row["preference"] for row in rows[:5]] == [None] * 5


def test_answers_of_another_number_are_refused():
    with pytest.raises(ValueError, match="zip"):
        comparisons(PROMPTS, OUTPUTS[:-1], "both")


def test_a_key_holds_everything_that_decides_the_verdict():
    pair = Comparison(0, False, "i", "a", "b")
    others = [
        pair._replace(instruction="j"),
        pair._replace(first="b", second="a"),
        pair._replace(second="c"),
        pair._replace(instruction="ia", first=""),
        pair._replace(first="a\nb", second=""),
    ]
    keys = {other.key("judge") for other in (pair, *others)} | {pair.key("another judge")}
    assert len(keys) == 7
    assert pair._replace(row=7).key("judge") == pair.key("judge")  # the prompts may be reordered
    assert len(pair._replace(first="\ud83d").key("judge")) == 64
