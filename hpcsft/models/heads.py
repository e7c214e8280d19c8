"""The output layer in training: it answers with the loss instead of the logits.

ZeRO 3 has the weight of a layer only while that layer computes, so the loss must be computed there.

Shapes: S positions, N supervised positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from hpcsft.models.cross_entropy import linear_cross_entropy

ENDS_WITH_NORM = ("baichuan", "llama", "mistral", "phi3", "qwen2", "qwen3")
"""Model types whose last step before the output layer is `model.norm`, which then sees supervised positions only."""

ROWS_AT_ONCE = 8192
"""Of a weight that is normalised in place; of 4096 elements of bfloat16 they take 64 MiB."""


class NormHead(torch.nn.Linear):
    """Baichuan2's output layer: every row of the weight [V, H] counts with its L2 norm scaled to 1."""

    def __init__(self, hidden_size: int, vocab_size: int):
        super().__init__(hidden_size, vocab_size, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [..., V] of hidden states [..., H]."""
        return functional.linear(hidden, functional.normalize(self.weight))


def fold_norm(model: PreTrainedModel) -> None:
    """Let `model`, if its output layer is a NormHead, normalise no more: it gets a plain one of the normalised rows.

    The logits stay the same to the bit. The weight is overwritten, some rows at a time: for models that do not train.
    One that is the embedding too is left alone.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, NormHead) or head.weight is model.get_input_embeddings().weight:
        return
    with torch.no_grad():
        for rows in head.weight.split(ROWS_AT_ONCE):
            rows.copy_(functional.normalize(rows))
    plain = torch.nn.Linear(head.in_features, head.out_features, bias=False, device="meta")
    plain.weight = head.weight
    model.set_output_embeddings(plain.train(head.training))


class LossHead(torch.nn.Module):
    """Stands in for an output layer, with its very parameter. Within `scoring` it returns the loss, else logits."""

    def __init__(self, head: torch.nn.Linear, norm: torch.nn.Module | None):
        super().__init__()
        self.weight = head.weight
        self._normalized = isinstance(head, NormHead)
        self._positions: torch.Tensor | None = None
        self._targets: torch.Tensor | None = None
        self.selects = norm is not None
        """Are positions selected ahead of the norm? If not, the model's `logits_to_keep` has to do it."""
        if norm is not None:
            norm.register_forward_pre_hook(self._select)

    @contextlib.contextmanager
    def scoring(self, positions: torch.Tensor, targets: torch.Tensor) -> Iterator[None]:
        """While this lasts the model answers with the loss of `targets` int64 [N] at `positions` int64 [N]."""
        self._positions, self._targets = positions, targets
        try:
            yield
        finally:
            self._positions = self._targets = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of hidden states [1, N, H] the summed cross-entropy, float32 scalar, or else logits [..., V]."""
        weight = functional.normalize(self.weight) if self._normalized else self.weight
        if self._targets is None:
            return functional.linear(hidden, weight)
        return linear_cross_entropy(hidden[0], weight, self._targets)

    def _select(self, norm: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._positions is None:
            return None
        hidden, *others = arguments
        return (hidden[:, self._positions], *others)


def install_loss_head(model: PreTrainedModel) -> None:
    """Give `model` a LossHead, unless its output layer is of another kind or it works on the logits afterwards."""
    head = model.get_output_embeddings()
    if type(head) not in (torch.nn.Linear, NormHead) or head.bias is not None or not _ends_with(model, head):
        return
    norm = model.base_model.norm if model.config.model_type in ENDS_WITH_NORM else None
    model.set_output_embeddings(LossHead(head, norm))


def _ends_with(model: PreTrainedModel, head: torch.nn.Module) -> bool:
    """Are the logits of `model` what `head` returns, as it returns it? Neither of its parts is computed to find out."""
    found = torch.zeros(1, 1, 1)
    hidden = BaseModelOutputWithPast(last_hidden_state=torch.zeros(1, 1, 1))
    base = model.base_model
    forwards = base.forward, head.forward
    base.forward, head.forward = lambda *_, **__: hidden, lambda _: found
    try:
        return model(input_ids=torch.zeros(1, 1, dtype=torch.int64)).logits is found
    except Exception:  # a model of another kind than this guesses
        return False
    finally:
        base.forward, head.forward = forwards
