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


NOISE = "epoch-2 to epoch-3: -0.5 points is noise: below 3.9 nothing could be seen with 805 prompts"
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
            "Differences (paired): epoch-2 to epoch-3: +4.0 points may still be noise (p = 0.0800, 805 prompts).",
        ),
        (
            [difference(difference=0.0, detectable=None)],
            "Differences (paired): epoch-2 to epoch-3: +0.0 points is noise: no prompt changed, of 805 prompts.",
        ),
        (
            [difference(difference=100.0, detectable=None, n=3)],
            "Differences (paired): epoch-2 to epoch-3: +100.0 points is noise: too few for a test, of 3 prompts.",
        ),
        (
            [difference(difference=50.0, detectable=None, n=1)],
            "Differences (paired): epoch-2 to epoch-3: +50.0 points is noise: one prompt tells nothing.",
        ),
    ],
)
def test_noise_is_called_noise(differences, expected):
    assert noise_sentence(differences) == expected


def test_what_may_be_hoped_for():
    assert prompts_sentence(805) == "As a rule of thumb, 805 prompts show differences from 4.9 points on."


@pytest.mark.parametrize(
    ("told", "wrong", "expected"), [(0, 0, ""), (100, 0, ""), (100, 5, "5 of the 100"), (9, 8, "8 of the 9")]
)
def test_replies_that_disagree_with_the_draw_are_told(told, wrong, expected):
    none = dict.fromkeys(("first", "second", "chosen_first", "consistency"))
    counts = {"n_first": 1, "n_second": 1, "n_both_orders": 0, "n_replies": told, "n_replies_disagree": wrong}
    sentence = draw_sentence(PositionBias(**none, **counts))
    assert sentence.startswith(expected) and bool(sentence) == bool(wrong)
    assert ("do not trust" in sentence) == (wrong > 0.05 * told)
