"""Guards the rows of others: the figures as they were published, and a reason wherever they may not be compared."""

from __future__ import annotations

import pytest

from hpcsft.evaluate.scores.published import Setting, comparability, evaluator_question, published_tables

LEADERBOARD, COURSE = published_tables()
ALIKE = Setting(
    judge="alpaca_eval_gpt4",
    question=evaluator_question("alpaca_eval_gpt4"),
    reference="text_davinci_003",
    orders="random",
    num_prompts=805,
    datasets=["helpful_base", "koala", "oasst", "selfinstruct", "vicuna"],
)


def test_the_published_figures():
    assert {row.name: (row.win_rate, row.avg_length) for row in LEADERBOARD.rows} == {
        "Alpaca 7B": (26.46, 396),
        "Pythia 12B OASST SFT": (25.96, 726),
        "Falcon 7B Instruct": (23.60, 478),
        "Baichuan-13B-Chat": (21.80, 1727),
        "Davinci001": (15.17, 296),
    }
    rates = [row.win_rate for row in COURSE.rows]
    assert rates == [13.91, 21.45, 16.15, 16.92, 15.92, 24.38, 26.15, 25.62]
    assert all("https://github.com/Zhou-bl/LLM-SFT" in table.source for table in (LEADERBOARD, COURSE))


def test_the_same_conditions_may_be_compared():
    assert comparability(LEADERBOARD, ALIKE) == "Judge, question, reference, orders and prompts are those of this run."


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"judge": "openai/gpt-4"}, "judge here openai/gpt-4, there alpaca_eval_gpt4"),
        ({"reference": "teacher"}, "reference here teacher, there text_davinci_003"),
        ({"orders": "both"}, "orders here both orders, there one order, drawn"),
        ({"orders": "reference_first"}, "orders here the reference always first, there one order, drawn"),
        (
            {"num_prompts": 32},
            "prompts here 32 of 5 data sets, there AlpacaEval's 805",
        ),
        ({"num_prompts": 3, "datasets": ["b", "", "a", "c"]}, "prompts here 3 of a, b, c, there AlpacaEval's 805"),
        (
            {"question": "the built-in one"},
            "question here the built-in one, there that of AlpacaEval's evaluator alpaca_eval_gpt4",
        ),
        ({"datasets": []}, "prompts here 805, there AlpacaEval's 805"),
    ],
)
def test_other_conditions_are_named(change, reason):
    told = comparability(LEADERBOARD, ALIKE.model_copy(update=change))
    assert told == f"Not comparable with this run: {reason}."


@pytest.mark.parametrize("name", ["gpt-3.5-turbo-instruct", "openai/gpt-3.5-turbo-instruct", "gpt35_turbo_instruct"])
def test_one_judge_has_several_spellings(name):
    assert "judge" not in comparability(COURSE, ALIKE.model_copy(update={"judge": name}))


def test_all_reasons_are_told_together():
    other = Setting(judge="j", question="q", reference="r", orders="both", num_prompts=3, datasets=["d"])
    assert comparability(COURSE, other).count(" here ") == 5


def test_the_same_model_with_a_question_of_its_own_is_another_judge():
    own = ALIKE.model_copy(update={"judge": "openai/gpt-3.5-turbo-instruct", "question": "the built-in one"})
    assert comparability(COURSE, own) == (
        "Not comparable with this run: question here the built-in one, "
        "there that of AlpacaEval's evaluator gpt35_turbo_instruct."
    )
    evaluator = {"judge": "gpt35_turbo_instruct", "question": evaluator_question("gpt35_turbo_instruct")}
    assert comparability(COURSE, ALIKE.model_copy(update=evaluator)).startswith("Judge, question, ")
