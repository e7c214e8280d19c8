"""What judging costs: an estimate before the first request, and a budget while requests are sent. Pure.

Tokens are estimated from characters, rather too many than too few: three ASCII characters make one, and three bytes of
UTF-8 of any other make two, so that a Chinese character counts as two tokens. SmolLM2's tokenizer, made for English,
takes 1.3 times less for English and code and as much for Chinese; judges with larger vocabularies take less. What is
spent is counted by what the endpoint reports.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

from hpcsft.errors import Waiting
from hpcsft.evaluate.judges.settings import JudgeSettings, judge_settings
from hpcsft.evaluate.prompts import Prompt
from hpcsft.evaluate.verdicts import Comparison, Usage, Verdict, comparisons
from hpcsft.spec.evaluate import JudgeSpec

FRAME_TOKENS = 12
"""What an endpoint adds around a question: roles, separators."""

RAISE = (
    "python jobs/judge.py RUN_DIR --over-budget goes beyond it, python launch/resume.py RUN_DIR --set "
    "evaluate.judge.max_cost_usd=... raises it; what was judged is kept"
)

KEPT = "what was judged is kept; python jobs/judge.py RUN_DIR goes on"


class CostEstimate(NamedTuple):
    """What some questions will take at most, if each is answered at the first try."""

    num_requests: int
    input_tokens: int
    max_output_tokens: int
    usd: float | None
    """None without evaluate.judge.price, and of a local judge."""


def estimate(spec: JudgeSpec, pairs: Sequence[Comparison]) -> CostEstimate:
    """What it will take to judge `pairs`. InputError if the judge's template or evaluator cannot be used."""
    settings = judge_settings(spec)
    return _total(spec, [estimated_usage(settings, pair) for pair in pairs])


def estimate_before(spec: JudgeSpec, prompts: Sequence[Prompt], num_models: int, answer_tokens: int) -> CostEstimate:
    """The same before there are answers: of `num_models` models, each answer `answer_tokens` long."""
    settings, longest = judge_settings(spec), "x" * (3 * answer_tokens)
    pairs = comparisons(prompts, [longest] * len(prompts), spec.orders, spec.order_seed)
    return _total(spec, [estimated_usage(settings, pair) for pair in pairs] * num_models)


def num_tokens(text: str) -> int:
    """Tokens of `text`, estimated."""
    size, length = len(text.encode("utf-8", "replace")), len(text)
    if size == length:
        return math.ceil(length / 3)
    num_ascii = sum(character < "\x80" for character in text)
    return math.ceil(num_ascii / 3 + (size - num_ascii) * 2 / 3)


def estimated_usage(settings: JudgeSettings, pair: Comparison) -> Usage:
    """Tokens of one question, and of the longest reply to it."""
    limit = settings.parameters.get("max_tokens") or settings.parameters.get("max_completion_tokens") or 0
    return Usage(num_tokens(settings.question.text(pair)) + FRAME_TOKENS, limit)


def usd(spec: JudgeSpec, usage: Usage) -> float | None:
    """The price of `usage`; None if the spec tells none."""
    if spec.price is None or spec.kind == "local":
        return None
    return (usage.input_tokens * spec.price.input + usage.output_tokens * spec.price.output) / 1e6


def _total(spec: JudgeSpec, each: Sequence[Usage]) -> CostEstimate:
    total = Usage(sum(usage.input_tokens for usage in each), sum(usage.output_tokens for usage in each))
    return CostEstimate(len(each), total.input_tokens, total.output_tokens, usd(spec, total))


class Budget:
    """Keeps what is spent below max_cost_usd: what is under way counts as estimated until its reply is there."""

    def __init__(self, spec: JudgeSpec, spent_usd: float = 0.0):
        self.spec = spec
        self.settings = judge_settings(spec)
        self.spent_usd = spent_usd
        self._reserved: dict[Comparison, float] = {}
        self._excess = 1.0
        """How much more than estimated a reply has cost so far, at worst."""
        self._lock = threading.Lock()

    def check(self, pairs: Sequence[Comparison]) -> None:
        """Waiting if judging `pairs` may cost more than is left."""
        cap = self.spec.max_cost_usd
        if not cap or not pairs:
            return
        cost = estimate(self.spec, pairs)
        if self.spent_usd + (cost.usd or 0) > cap:
            before = f", and {self.spent_usd:.2f} are spent" if self.spent_usd else ""
            raise Waiting(
                f"{cost.num_requests} questions to the judge may cost {cost.usd:.2f} US dollars{before}; "
                f"evaluate.judge.max_cost_usd is {cap:.2f}",
                RAISE,
            )

    def reserve(self, pair: Comparison) -> bool:
        """Set the estimated cost of a question aside; False if that is more than is left."""
        cap, cost = self.spec.max_cost_usd, usd(self.spec, estimated_usage(self.settings, pair)) or 0.0
        with self._lock:
            cost *= self._excess
            if cap and self.spent_usd + sum(self._reserved.values()) + cost > cap:
                return False
            self._reserved[pair] = cost
            return True

    def release(self, pair: Comparison) -> None:
        """The question is not under way any more."""
        with self._lock:
            self._reserved.pop(pair, None)

    def spend(self, pair: Comparison, verdict: Verdict) -> float | None:
        """Count a reply, and tell its price in US dollars. Where the endpoint does not tell, it is estimated."""
        if verdict.refused:
            return usd(self.spec, Usage(0, 0))
        asked = estimated_usage(self.settings, pair)
        price = usd(self.spec, verdict.usage or Usage(asked.input_tokens, num_tokens(verdict.raw)))
        if price:
            with self._lock:
                self.spent_usd += price
                self._excess = max(self._excess, price / (usd(self.spec, asked) or price))
        return price

    def exhausted(self) -> Waiting:
        """What to raise when `reserve` says no."""
        return Waiting(
            f"judging stopped at {self.spent_usd:.2f} US dollars: the next question could exceed "
            f"evaluate.judge.max_cost_usd, {self.spec.max_cost_usd:.2f}",
            RAISE,
        )
