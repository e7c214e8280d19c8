"""What the figures mean, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hpcsft.evaluate.scores.paired import Difference, detectable_with
from hpcsft.evaluate.scores.position import PositionBias

MOST_DISAGREEING = 0.05
"""Share of the judge's replies beyond which AlpacaEval's draw was not what the judge saw."""


def noise_sentence(differences: Sequence[Difference]) -> str:
    """Which differences are noise, in one sentence."""
    if not differences:
        return ""
    parts = [_told(difference) for difference in differences]
    corrected = f", Holm over {len(parts)} comparisons" if len(parts) > 1 else ""
    return f"Differences (paired{corrected}): {'; '.join(parts)}."


def _told(difference: Difference) -> str:
    what = f"{difference.before} to {difference.after}: {difference.difference:+.1f} points"
    if difference.significant:
        return f"{what} is more than noise (p = {difference.p_holm:.4f})"
    prompts = f"{difference.n} prompt{'s' if difference.n != 1 else ''}"
    if difference.n == 1:
        return f"{what} is noise: one prompt tells nothing"
    if difference.detectable is None:
        same = "no prompt changed" if difference.difference == 0 else "too few for a test"
        return f"{what} is noise: {same}, of {prompts}"
    if abs(difference.difference) < difference.detectable:
        return f"{what} is noise: below {difference.detectable:.1f} nothing could be seen with {prompts}"
    return f"{what} may still be noise (p = {difference.p_holm:.4f}, {prompts})"


def prompts_sentence(num_prompts: int) -> str:
    """What to hope for with so many prompts."""
    points = detectable_with(num_prompts)
    return f"As a rule of thumb, {num_prompts} prompts show differences from {points:.1f} points on."


def draw_sentence(bias: PositionBias) -> str:
    """Do the judge's replies agree with the order that was drawn again? Empty where they do, or tell nothing."""
    wrong, told = bias.n_replies_disagree, bias.n_replies
    if not wrong:
        return ""
    text = f"{wrong} of the {told} replies that name an answer disagree with AlpacaEval's draw of the order"
    if wrong > MOST_DISAGREEING * told:
        return f"{text}: the judge saw another order, so do not trust the figures on position (another --seed?)."
    return f"{text}."
