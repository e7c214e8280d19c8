"""Sequences of several lengths as one tensor.

Shapes: B sequences, P tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def left_padded(sequences: Sequence[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids and attention_mask, int64 [B, P]. The mask comes from the lengths: `pad` may be a real token."""
    longest = max(len(ids) for ids in sequences)
    input_ids = torch.tensor([[pad] * (longest - len(ids)) + ids for ids in sequences])
    attention_mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in sequences])
    return input_ids, attention_mask
