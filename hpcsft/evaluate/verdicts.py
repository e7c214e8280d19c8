"""Pairs of answers, verdicts on them, and annotations in AlpacaEval's format. Pure.

output_1 is the reference and output_2 the model, as in AlpacaEval. A preference lies between 1 (the reference is
better) and 2 (the model is); 1.5 is a draw.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from hpcsft.evaluate.prompts import Prompt

DRAW = 1.5


class Comparison(NamedTuple):
    """Two answers as a judge sees them."""

    row: int
    model_first: bool
    instruction: str
    first: str
    second: str

    def key(self, judge: str) -> str:
        """Digest of all that decides the verdict: judge (with its template and settings), order and texts."""
        parts = [judge, self.instruction, self.first, self.second]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


class Usage(NamedTuple):
    """What one reply took, as the endpoint counts."""

    input_tokens: int
    output_tokens: int


class Verdict(NamedTuple):
    """A judge's word on one comparison."""

    first_better: float | None
    """Probability that the answer shown first is better: 0 or 1 for a judge that just says so. None: no verdict."""
    raw: str
    """What the judge said."""
    refused: bool = False
    """This question was not answered: it is too long, a filter stopped it, or every try at it failed."""
    usage: Usage | None = None
    """None if the endpoint does not tell."""
    given_up: bool = False
    """Refused for now only: the question may be asked again."""


def is_switched(instruction: str, seed: int = 0) -> bool:
    """Does AlpacaEval show the model's answer first for this instruction? (alpaca_eval, `is_switched_outputs`)"""
    return random.Random(f"is_switched_outputs{instruction}{seed}").choices([False, True], k=1)[0]


def comparisons(prompts: Sequence[Prompt], outputs: Sequence[str], orders: str, seed: int = 0) -> list[Comparison]:
    """What has to be judged, for `orders` both, random (drawn with `seed`) or reference_first.

    Equal answers are a draw unseen.
    """
    pairs = []
    for row, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        if prompt.output == output:
            continue
        shown = {
            "both": (False, True),
            "reference_first": (False,),
            "random": (is_switched(prompt.instruction, seed),),
        }
        for model_first in shown[orders]:
            first, second = (output, prompt.output) if model_first else (prompt.output, output)
            pairs.append(Comparison(row, model_first, prompt.instruction, first, second))
    return pairs


def annotations(
    prompts: Sequence[Prompt],
    outputs: Sequence[str],
    judged: Sequence[tuple[Comparison, Verdict]],
    generator: str,
    annotator: str,
) -> list[dict[str, Any]]:
    """One annotation per prompt. Its preference is the mean over the orders, null if one has no verdict."""
    by_row: dict[int, list[tuple[Comparison, Verdict]]] = {}
    for comparison, verdict in judged:
        by_row.setdefault(comparison.row, []).append((comparison, verdict))
    rows = []
    for row, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        orders = [
            {
                "model_first": comparison.model_first,
                "preference": preference(comparison, verdict),
                "raw": verdict.raw,
            }
            for comparison, verdict in sorted(by_row.get(row, []))
        ]
        values = [order["preference"] for order in orders]
        if prompt.output == output:
            mean: float | None = DRAW
        else:
            mean = None if None in values or not values else round(sum(values) / len(values), 9)  # 1.5 stays a draw
        rows.append(
            {
                "instruction": prompt.instruction,
                "output_1": prompt.output,
                "generator_1": prompt.generator,
                "output_2": output,
                "generator_2": generator,
                "dataset": prompt.dataset,
                "annotator": annotator,
                "preference": mean,
                "orders": orders,
            }
        )
    return rows


def preference(comparison: Comparison, verdict: Verdict) -> float | None:
    """The verdict as a preference for the model's answer, between 1 and 2."""
    if verdict.first_better is None:
        return None
    return 1 + (verdict.first_better if comparison.model_first else 1 - verdict.first_better)
