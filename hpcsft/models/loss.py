"""The training loss: cross-entropy at supervised positions only.

Shapes: S positions, V vocabulary, N supervised positions. Logits are [1, N, V], never [1, S, V].
"""

from __future__ import annotations

import torch
from torch.nn import functional


def supervised_loss(
    model: torch.nn.Module,
    input_ids: torch.Tensor,
    position_ids: torch.Tensor,
    positions: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    """Sum of the cross-entropy over the N supervised positions, float32 scalar; 0 with a graph when N is 0.

    The arguments are the fields of `data.batches.Batch`, in its order. It is a sum, so that the caller can divide by
    the supervised tokens of the whole global batch: a mean of means would weigh tokens by their batch.
    """
    empty = len(targets) == 0
    keep = torch.zeros(1, dtype=torch.int64, device=positions.device) if empty else positions
    logits = model(input_ids=input_ids, position_ids=position_ids, logits_to_keep=keep, use_cache=False).logits[0]
    if empty:
        return logits.float().sum() * 0.0
    return functional.cross_entropy(logits.float(), targets, reduction="sum")
