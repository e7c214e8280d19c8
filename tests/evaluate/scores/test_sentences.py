"""Guards that the sentences call noise noise, and warn where the position figures are not what the judge saw."""

from __future__ import annotations

import pytest

from hpcsft.evaluate.scores.paired import Difference
from hpcsft.evaluate.scores.position import PositionBias
from hpcsft.evaluate.scores.sentences import draw_sentence, noise_sentence, prompts_sentence


def difference(**changes) -> Difference:
    values = {"before": "epoch-2", "after": "epoch-3", "n": 805, "difference": -0.52, "standard_error": 1.39}
    values |= {"interval": (-3.2, 2.1), "p_value": 0.7, "p_holm": 0.7, "detectable": 3.894, "significant": False}
    return Difference(**{**values, **changes})


NOISE = (
    "epoch-2 to epoch-3: -0.5 points is not told from noise (p = 0.7000; these 805 prompts find 3.9 points in 80% of "
    "cases)"
)
DRAW = "AlpacaEval's draw"
REAL = {"after": "epoch-1", "before": "base", "difference": 12.34, "p_holm": 0.0002, "significant": True}


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([], ""),
        ([difference()], f"Differences (paired): {NOISE}."),
        (
            [difference(**REAL), difference()],
            "Differences (paired, Holm over 2 comparisons): base to epoch-1: +12.3 points is more than noise "
            f"(p = 0.0002); {NOISE}.",
        ),
        (
            [difference(difference=4.0, p_holm=0.08)],
            "Differences (paired): epoch-2 to epoch-3: +4.0 points is not told from noise (p = 0.0800; these 805 "
            "prompts find 3.9 points in 80% of cases).",
        ),
        (
            [difference(difference=0.0, detectable=None)],
            "Differences (paired): epoch-2 to epoch-3: +0.0 points is not told from noise: no prompt changed, "
            "of 805 prompts.",
        ),
        (
            [difference(difference=100.0, detectable=None, n=3)],
            "Differences (paired): epoch-2 to epoch-3: +100.0 points is not told from noise: too few for a test, "
            "of 3 prompts.",
        ),
        (
            [difference(difference=50.0, detectable=None, n=1)],
            "Differences (paired): epoch-2 to epoch-3: +50.0 points is not told from noise: one prompt tells nothing.",
        ),
    ],
)
def test_noise_is_called_noise(differences, expected):
    assert noise_sentence(differences) == expected


def test_what_may_be_hoped_for():
    assert prompts_sentence(805) == "As a rule of thumb, 805 prompts find a difference of 4.9 points in 80% of cases."


@pytest.mark.parametrize(
    ("told", "wrong", "expected"), [(0, 0, ""), (100, 0, "; 0 of"), (100, 5, "; 5 of the 100"), (9, 8, "; 8 of the 9")]
)
def test_an_order_that_was_drawn_again_is_told_and_whether_replies_agree(told, wrong, expected):
    none = dict.fromkeys(("first", "second", "chosen_first", "consistency"))
    counts = {"n_first": 1, "n_second": 1, "n_both_orders": 0, "n_replies": told, "n_replies_disagree": wrong}
    bias = PositionBias(**none, **counts, order_source="drawn")
    sentence = draw_sentence(bias)
    assert sentence.startswith(
        f"The order of the answers is not in the file: shown 1st and 2nd follow {DRAW}{expected}"
    )
    assert ("do not trust" in sentence) == (wrong > 0.05 * told)
    for source in ("recorded", None):
        assert draw_sentence(bias.model_copy(update={"order_source": source})) == ""
