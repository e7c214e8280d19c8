"""The training loss: cross-entropy at supervised positions only.

Shapes: S positions, V vocabulary, N supervised positions. There are never [S, V] logits.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from hpcsft.data.batches import Batch
from hpcsft.models.attention import document_arguments
from hpcsft.models.heads import LossHead


def supervised_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Sum of the cross-entropy over the N supervised positions, float32 scalar; 0 with a graph when N is 0.

    `model` is a causal language model, or a DeepSpeed engine around one. Rows of the batch do not see each other. It is
    a sum, so that the caller can divide by the supervised tokens of the whole global batch: a mean of means would
    weigh tokens by their batch.
    """
    inner = getattr(model, "module", model)
    head = inner.get_output_embeddings()
    arguments = {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "use_cache": False,
        **document_arguments(inner, batch.lengths, batch.input_ids.device),
    }
    if isinstance(head, LossHead):
        with head.scoring(batch.positions, batch.targets):
            return model(**arguments, logits_to_keep=0 if head.selects else batch.positions).logits
    empty = len(batch.targets) == 0
    keep = torch.zeros_like(batch.input_ids[0, :1]) if empty else batch.positions
    logits = model(**arguments, logits_to_keep=keep).logits[0].float()
    return logits.sum() * 0.0 if empty else functional.cross_entropy(logits, batch.targets, reduction="sum")
