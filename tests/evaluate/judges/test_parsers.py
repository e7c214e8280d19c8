"""Guards how a judge's word is read: no verdict comes from a reply that gives none, and AlpacaEval's parsers mean here
what they mean there. The expectations are written down by hand, from its documentation and its formulas.
"""

from __future__ import annotations

import math

import pytest

from hpcsft.evaluate.judges.parsers import PARSERS, Completion, own_parser, parser_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Output (a)", 1.0),
        ("Output (b)", 0.0),
        (" Output (a)", 1.0),
        ("\n\nOutput (b)\n", 0.0),
        ("Output (a) is better, because it is correct.", 1.0),
        ("The first is shorter.\nOutput (b)", 0.0),
        ("Output (a)\nOutput (a)", 1.0),
        ("Output (a)\nOutput (b)", None),
        ("I prefer Output (a).", None),
        ("output (a)", None),
        ("Output (c)", None),
        ("Output a", None),
        ("a", None),
        ("", None),
    ],
)
def test_our_own_question_wants_exactly_one_of_the_two(text, expected):
    assert own_parser().first_better(Completion(text)) == expected


TEXT = {1: r"(?:^|\n) ?Output \(a\)", 2: r"(?:^|\n) ?Output \(b\)"}
RANKED = "[{'model': 'model_1', 'rank': %s}, {'model': 'model_2', 'rank': %s}]"
LEADERBOARD = '{"concise": "x", "ordered_models": [{"model": "m", "rank": %s}, {"model": "M", "rank": %s}]}'
NAMED = {"json_parser": {"annotation_key": "best"}, "replace_parser": {"replacer": {"m": 1}}}
PIPELINE = {"json_parser": {"annotation_key": "ordered_models"}, "ranking_parser": {"model_1_name": "m"}}


@pytest.mark.parametrize(
    ("name", "settings", "text", "expected"),
    [
        ("regex_parser", {"outputs_to_match": TEXT}, "\n\nOutput (a)", 1.0),
        ("regex_parser", {"outputs_to_match": TEXT}, "Output (b) is best", 0.0),
        ("regex_parser", {"outputs_to_match": TEXT}, "Output (a)\nOutput (a)", None),  # two replies to one question
        ("regex_parser", {"outputs_to_match": TEXT}, "I say Output (a)", None),
        ("regex_parser", {"outputs_to_match": TEXT}, "", None),
        ("regex_parser", {"outputs_to_match": {1: "", 2: "b"}}, "b", None),
        ("regex_parser", {"outputs_to_match": {1: "(?i)output \\(a\\)", 2: "x"}}, '{"best": "OUTPUT (a)"}', 1.0),
        ("ranking_parser", {}, RANKED % (1, 2), 1.0),
        ("ranking_parser", {}, RANKED % (2, 1), 0.0),
        ("ranking_parser", {}, RANKED % (3, 1), None),
        ("ranking_parser", {}, "model_1 is best", None),
        ("ranking_parser", {}, "[" * 5000, None),
        ("ranking_parser", {"model_1_name": "model_2"}, RANKED % (2, 1), 1.0),
        ("lmsys_parser", {}, "7 1\nbecause", 1.0),
        ("lmsys_parser", {}, "1 7.5", 0.0),
        ("lmsys_parser", {}, "8 8\n", 0.5),
        ("lmsys_parser", {}, "8/10", None),
        ("json_parser", {"annotation_key": "best"}, '```json\n{"best": 2}\n```', 0.0),
        ("json_parser", {"annotation_key": "best"}, '{"better": 2}', None),
        ("eval_parser", {}, "1", 1.0),
        ("eval_parser", {}, "3", None),
        ("pipeline_meta_parser", {"parsers_to_kwargs": PIPELINE}, LEADERBOARD % (1, 2), 1.0),
        ("pipeline_meta_parser", {"parsers_to_kwargs": PIPELINE}, LEADERBOARD % (2, 1), 0.0),
        ("pipeline_meta_parser", {"parsers_to_kwargs": PIPELINE}, LEADERBOARD % ("0", 1), None),
        ("pipeline_meta_parser", {"parsers_to_kwargs": NAMED}, '{"best": "m"}', 1.0),
        ("replace_parser", {"replacer": {"m": 1}, "default_replacer": 2}, "M", 0.0),
    ],
)
def test_alpaca_evals_parsers(name, settings, text, expected):
    assert parser_of(name, settings).first_better(Completion(text)) == expected


def weighed(place: dict[str, float], **settings: object) -> float | None:
    parser = parser_of("logprob_parser", {"numerator_token": "m", "denominator_tokens": ["m", "M"], **settings})
    return parser.first_better(Completion("m", ({"noise": -1.0}, place)))


def test_log_probabilities_weigh_the_verdict():
    place = {"m": math.log(0.6), "M": math.log(0.2), "x": math.log(0.2)}
    last = {"log_prob_index": -1}
    assert weighed(place, is_binarize=False, **last) == pytest.approx(0.75, abs=1e-12)
    assert weighed({"m": -800.0, "M": -801.0}, is_binarize=False, **last) == pytest.approx(1 / (1 + math.exp(-1)))
    assert weighed({"M": -0.1}, is_binarize=False, **last) == 0.0
    assert weighed({"m": -0.1}, is_binarize=False, **last) == 1.0
    assert weighed({"x": -0.1}, is_binarize=False, **last) is None
    assert (weighed(place, **last), weighed({"m": -2.0, "M": -1.0}, **last)) == (1.0, 0.0)
    assert weighed(place, is_binarize=False) is None  # a reply of two tokens is an answer to two questions
    assert parser_of("logprob_parser", {"numerator_token": "m", "denominator_tokens": ["m"]}).first_better(
        Completion("m")
    ) is None  # fmt: skip


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("oracle_parser", {}, "no parser 'oracle_parser'; there are: regex_parser, ranking_parser"),
        ("regex_parser", {}, "regex_parser takes outputs_to_match, not: none"),
        ("regex_parser", {"outputs_to_match": {1: "("}}, "no mapping of regular expressions"),
        ("ranking_parser", {"best": 1}, "ranking_parser takes model_1_name .optional., not: best"),
        ("pipeline_meta_parser", {"parsers_to_kwargs": {"logprob_parser": {}}}, "logprob_parser takes|needs parsers"),
        ("pipeline_meta_parser", {"parsers_to_kwargs": {}}, "needs parsers, all of them for text"),
    ],
)
def test_what_is_not_known_is_named(name, settings, message):
    with pytest.raises(ValueError, match=message):
        parser_of(name, settings)


def test_only_the_parser_of_log_probabilities_asks_for_them():
    assert [name for name in PARSERS if name == "logprob_parser"] == ["logprob_parser"]
    assert parser_of("logprob_parser", {"numerator_token": "m", "denominator_tokens": ["m"]}).needs_logprobs
    assert not own_parser().needs_logprobs
