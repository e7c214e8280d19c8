"""Guards the user's money: the estimate is rather too high than too low, and no request goes out that could take what
is spent beyond the cap, whatever was spent before.
"""

from __future__ import annotations

import pytest

from hpcsft.errors import Waiting
from hpcsft.evaluate.judges import make_judge
from hpcsft.evaluate.judges.cost import Budget, estimate, estimate_before, num_tokens
from hpcsft.evaluate.judges.question import QUESTION, Question
from hpcsft.evaluate.prompts import Prompt
from hpcsft.evaluate.verdicts import Usage, Verdict
from hpcsft.spec.evaluate import JudgeSpec
from tests.evaluate.conftest import reply
from tests.evaluate.judges.ask import PAIR, PATIENT, given_by, numbered

PRICE = {"input": 10.0, "output": 30.0}


def test_tokens_are_counted_rather_high():
    assert num_tokens("") == 0
    assert num_tokens("a" * 30) == 10  # tokenizers of judges take about 7 of English text
    assert num_tokens("好" * 30) == 60
    assert num_tokens("ж" * 30) == 40
    assert num_tokens("\U0001f642" * 30) == 80
    assert num_tokens("abc好好") == 5
    assert num_tokens("\ud83d") == 1  # half a character counts as the ? that is sent


def test_the_estimate_is_the_sum_over_all_questions():
    spec = JudgeSpec(model="judge", max_tokens=20, price=PRICE)
    pairs = numbered(3)
    found = estimate(spec, pairs)
    inputs = sum(num_tokens(Question(QUESTION).text(pair)) + 12 for pair in pairs)
    assert found == (3, inputs, 60, pytest.approx((inputs * 10 + 60 * 30) / 1e6))
    assert estimate(JudgeSpec(model="judge"), pairs).usd is None
    assert estimate(JudgeSpec(kind="local", model="judge", price=PRICE), pairs).usd is None


def test_before_there_are_answers_each_counts_as_long_as_it_may_be():
    prompts = [Prompt(instruction=f"question {n}", output="yes") for n in range(5)]
    both = estimate_before(JudgeSpec(model="judge"), prompts, 3, 100)
    assert both.num_requests == 5 * 2 * 3
    assert both.input_tokens > 30 * 100
    one = estimate_before(JudgeSpec(model="judge", orders="random"), prompts, 3, 100)
    assert (one.num_requests, one.input_tokens * 2) == (15, both.input_tokens)


def test_above_the_cap_nobody_is_asked_and_both_figures_are_named():
    spec = JudgeSpec(model="judge", price=PRICE, max_cost_usd=0.05)
    Budget(spec).check(numbered(2))
    with pytest.raises(Waiting, match=r"30 questions to the judge may cost 0\.0\d US dollars; .*max_cost_usd is 0\.05"):
        Budget(spec).check(numbered(30))
    with pytest.raises(Waiting, match=r"may cost 0\.01 US dollars, and 0\.05 are spent; .*max_cost_usd is 0\.05"):
        Budget(spec, spent_usd=0.0495).check(numbered(2))
    Budget(spec, spent_usd=0.0495).check([])


def test_what_an_endpoint_reports_is_what_counts():
    spec = JudgeSpec(model="judge", price=PRICE)
    budget = Budget(spec)
    assert budget.spend(PAIR, Verdict(1.0, "Output (a)", usage=Usage(100, 10))) == pytest.approx(0.0013)
    silent = budget.spend(PAIR, Verdict(1.0, "Output (a)"))
    asked = estimate(spec, [PAIR])
    assert silent == pytest.approx((asked.input_tokens * 10 + 4 * 30) / 1e6)  # estimated, where it reports nothing
    assert budget.spend(PAIR, Verdict(None, "refused: long", refused=True)) == 0
    assert budget.spent_usd == pytest.approx(0.0013 + silent)
    assert Budget(JudgeSpec(model="judge")).spend(PAIR, Verdict(1.0, "", usage=Usage(1, 1))) is None


@pytest.mark.parametrize("max_concurrency", [1, 8])
def test_judging_stops_below_the_cap_when_replies_cost_more_than_estimated(endpoint, max_concurrency):
    """A judge that thinks aloud is billed for it: after the first replies more is set aside for the next."""
    endpoint.answer = lambda request: (200, reply("Output (a)", (100, 900)))
    spec = JudgeSpec(
        **{**PATIENT, "max_concurrency": max_concurrency},
        base_url=endpoint.base_url, price=PRICE, max_cost_usd=0.5,
    )  # fmt: skip
    judge, budget, kept = make_judge(spec), Budget(spec), []

    def keep(given):
        kept.extend(given)
        for pair, verdict in given:
            budget.spend(pair, verdict)

    with pytest.raises(Waiting, match=r"judging stopped at 0\.\d\d US dollars: .*max_cost_usd, 0\.50"):
        list(judge.verdicts(numbered(60), keep, budget))
    judge.close()
    assert 10 <= len(kept) == len(endpoint.requests)
    assert budget.spent_usd == pytest.approx(len(kept) * 0.028)
    assert 0.5 - 0.028 <= budget.spent_usd <= 0.5


def test_what_is_set_aside_is_given_back(endpoint):
    """The cap leaves room for two at a time, and all get their turn."""
    each = estimate(JudgeSpec(model="judge", price=PRICE), numbered(1)).usd
    endpoint.answer = lambda request: (200, reply("Output (a)", (1, 1)))
    spec = JudgeSpec(
        **{**PATIENT, "max_concurrency": 4}, base_url=endpoint.base_url, price=PRICE, max_cost_usd=each * 2.5
    )
    judge = make_judge(spec)
    assert len(given_by(judge, numbered(20))) == 20
    judge.close()
