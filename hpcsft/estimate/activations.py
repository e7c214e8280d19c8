"""What one rank needs for one micro batch beside model states: activations and the loss. Pure.

Shapes: S positions, H hidden size, Q all query heads, K all key heads, I intermediate size, V vocabulary; b bytes of an
element. After Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", section 4.1,
for layers like Llama's: RMSNorm computes in float32 and keeps its input so, the MLP has a gate, nothing is dropped out,
and flash attention keeps no S x S matrix.

With LoRA (Hu et al. 2021) adapters need the input of their layer for their own gradient, the r products of it with A,
and, of what is dropped out, a copy and a mask. No frozen weight gets a gradient, so that norms keep less. Counted as if
every linear layer had an adapter: where fewer have, without checkpointing, up to a third less is kept.
"""

from __future__ import annotations

from typing import NamedTuple

from hpcsft.lora import adapted
from hpcsft.model_shape import ModelShape
from hpcsft.spec.model import LoraSpec

LOGITS_PER_CHUNK = 2**24
FEWEST_POSITIONS = 256
"""Sizes of the chunks in which the loss is computed: models/cross_entropy.py."""
FULL_LOGIT_BYTES = 12
"""What a loss over all logits at once keeps of each: itself, a float32 copy, its log-probability, a gradient."""


class Activations(NamedTuple):
    """Bytes of one micro batch on one rank."""

    kept: int
    """From the forward pass to the backward pass: all layers, or with checkpointing their inputs alone."""
    working: int
    """Most at once beside those in the backward pass: a layer that is computed again, and gradients under way."""
    loss: int
    """All that the loss needs: its logits, and the gradients that it makes in the forward pass."""
    logits: int
    """Those of one chunk."""
    full_logits: int
    """What logits at all positions would have taken, and do not."""

    @property
    def activations(self) -> int:
        """The most at once in the backward pass."""
        return self.kept + self.working

    @property
    def peak(self) -> int:
        """The most at once: the loss ends before the backward pass of the layers begins."""
        return self.kept + max(self.working, self.loss)


def layer_bytes(shape: ModelShape, element_bytes: int, frozen: bool = False) -> int:
    """What a layer keeps of one position for its backward pass, adapters aside; `frozen`: its weights do not learn."""
    b, hidden = element_bytes, shape.hidden_size
    norms = 2 * hidden * (4 + b * (1 if frozen else 2))  # float32 input, normalised; the scaled result for the matrices
    attention = 2 * b * (shape.query_size + shape.kv_size) + 4 * shape.num_heads  # q, k, v, result; float32 log-sums
    mlp = 4 * b * shape.intermediate_size  # gate, its activation, up, their product
    return norms + attention + mlp


def adapter_bytes(shape: ModelShape, element_bytes: int, lora: LoraSpec) -> int:
    """What the adapters of an average layer keep of one position."""
    b = element_bytes
    kept = (lora.rank * b + (inputs * (b + 1) if lora.dropout else 0) for inputs, _ in adapted(shape, lora))
    return -(-sum(kept) // shape.num_layers)


def activations(
    shape: ModelShape,
    positions: int,
    element_bytes: int,
    checkpointing: bool,
    supervised: int | None = None,
    lora: LoraSpec | None = None,
) -> Activations:
    """Memory for a micro batch of `positions` positions, of which `supervised` (all, if not known) carry loss."""
    b, hidden = element_bytes, shape.hidden_size
    supervised = positions if supervised is None else supervised
    layer = (layer_bytes(shape, b, lora is not None) + (adapter_bytes(shape, b, lora) if lora else 0)) * positions
    head = shape.head_parameters * b
    grad_head = 0 if lora else head
    # of the MLP while its matrices get their gradients; the first layers' end with the gradient of the embedding
    backward = b * (3 * positions + (0 if lora else hidden)) * shape.intermediate_size
    kept = b * hidden * positions + shape.num_layers * (b * hidden * positions if checkpointing else layer)
    working = backward + layer if checkpointing else backward
    working = max(working, grad_head - (0 if checkpointing else kept))
    chunk = min(supervised, max(FEWEST_POSITIONS, LOGITS_PER_CHUNK // shape.vocab_size))
    logits = chunk * shape.vocab_size * (4 + b * (b < 4))  # in float32, and as the product gave them
    final_norm = supervised * hidden * (4 + 3 * b)
    weights = grad_head + (head + grad_head if shape.normalized_head else 0)
    if not shape.chunked_loss:
        logits = supervised * shape.vocab_size * FULL_LOGIT_BYTES
    return Activations(
        kept=kept,
        working=working,
        loss=logits + final_norm + weights,
        logits=logits,
        full_logits=FULL_LOGIT_BYTES * positions * shape.vocab_size,
    )
