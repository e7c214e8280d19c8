"""The training loss: cross-entropy at supervised positions only.

Shapes: S positions, V vocabulary, N supervised positions. Logits are [1, N, V], never [1, S, V].
"""

from __future__ import annotations

import torch
from torch.nn import functional

from hpcsft.data.batches import Batch


def supervised_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Sum of the cross-entropy over the N supervised positions, float32 scalar; 0 with a graph when N is 0.

    It is a sum, so that the caller can divide by the supervised tokens of the whole global batch: a mean of means
    would weigh tokens by the batch that they happen to be in.
    """
    empty = len(batch.targets) == 0
    keep = torch.zeros(1, dtype=torch.int64, device=batch.positions.device) if empty else batch.positions
    logits = model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, logits_to_keep=keep, use_cache=False
    ).logits[0]
    if empty:
        return logits.float().sum() * 0.0
    return functional.cross_entropy(logits.float(), batch.targets, reduction="sum")
