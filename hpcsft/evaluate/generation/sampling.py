"""Which token comes next.

Every answer has a stream of random numbers of its own: which others are computed beside it changes nothing. A token is
drawn as the greatest of logit + Gumbel noise (Gumbel 1954; Maddison et al. 2014, "A* sampling"), which, unlike a place
in the sums of probabilities, does not move with the last bits of all logits.

Shapes: B answers, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from hpcsft.spec.evaluate import GenerationSpec


class Sampler:
    """Greedy, or by `temperature`, then `top_k`, then `top_p`, as transformers applies them."""

    def __init__(self, settings: GenerationSpec):
        self.greedy = settings.temperature == 0
        self._warpers = LogitsProcessorList()
        if not self.greedy:
            self._warpers.append(TemperatureLogitsWarper(settings.temperature))
        if settings.top_k:
            self._warpers.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1:
            self._warpers.append(TopPLogitsWarper(settings.top_p))

    def stream(self, seed: int, device: torch.device) -> torch.Generator | None:
        """The random numbers of one answer, None if none are needed. Other kinds of devices draw other numbers."""
        return None if self.greedy else torch.Generator(device).manual_seed(seed)

    def pick(self, logits: torch.Tensor, streams: Sequence[torch.Generator | None]) -> list[int]:
        """The next token of each answer, of logits float32 [B, V]; draws V numbers of each stream."""
        if not self.greedy:
            logits = self._warpers(None, logits) + torch.stack([_gumbel(logits.shape[1], stream) for stream in streams])
        return logits.argmax(dim=-1).tolist()


def _gumbel(size: int, stream: torch.Generator) -> torch.Tensor:
    """Standard Gumbel noise, float32 [size]. In float64 first: float32 knows no numbers close enough to 1."""
    uniform = torch.rand(size, generator=stream, device=stream.device, dtype=torch.float64)
    return -torch.log(-torch.log(uniform)).float()
