"""What the figures mean, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hpcsft.evaluate.scores.paired import Difference, detectable_with
from hpcsft.evaluate.scores.position import PositionBias

MOST_DISAGREEING = 0.05
"""Share of the judge's replies beyond which AlpacaEval's draw was not what the judge saw."""


def noise_sentence(differences: Sequence[Difference]) -> str:
    """Which differences are more than noise and which are not told from it, in one sentence."""
    if not differences:
        return ""
    parts = [_told(difference) for difference in differences]
    corrected = f", Holm over {len(parts)} comparisons" if len(parts) > 1 else ""
    return f"Differences (paired{corrected}): {'; '.join(parts)}."


def _told(difference: Difference) -> str:
    what = f"{difference.before} to {difference.after}: {difference.difference:+.1f} points"
    if difference.significant:
        return f"{what} is more than noise (p = {difference.p_holm:.4f})"
    if difference.n == 1:
        return f"{what} is not told from noise: one prompt tells nothing"
    if difference.detectable is None:
        same = "no prompt changed" if difference.difference == 0 else "too few for a test"
        return f"{what} is not told from noise: {same}, of {difference.n} prompts"
    found = f"these {difference.n} prompts find {difference.detectable:.1f} points in 80% of cases"
    return f"{what} is not told from noise (p = {difference.p_holm:.4f}; {found})"


def condition(judge: str | None, reference: str | None) -> str:
    """Who judged, and against whom."""
    return f"judge {judge or 'unknown'}, reference {reference or 'unknown'}"


def prompts_sentence(num_prompts: int) -> str:
    """What to hope for with so many prompts."""
    points = detectable_with(num_prompts)
    return f"As a rule of thumb, {num_prompts} prompts find a difference of {points:.1f} points in 80% of cases."


def draw_sentence(bias: PositionBias) -> str:
    """Where the order comes from if no file records it, and do the judge's replies agree; empty if it is recorded."""
    if bias.order_source != "drawn":
        return ""
    text = "The order of the answers is not in the file: shown 1st and 2nd follow AlpacaEval's draw"
    wrong, told = bias.n_replies_disagree, bias.n_replies
    if not told:
        return f"{text}."
    text = f"{text}; {wrong} of the {told} replies that name an answer disagree with it"
    if wrong > MOST_DISAGREEING * told:
        return f"{text}: the judge saw another order, so do not trust the figures on position (another --seed?)."
    return f"{text}."
