"""Floating-point operations that training needs. Pure.

The convention of "model FLOPs" (Chowdhery et al. 2022, PaLM, appendix B): a multiplication and an addition are two
operations, the backward pass is twice the forward pass, and what is recomputed does not count, so that a utilisation
made of it (MFU) falls with gradient checkpointing, as it should. Three things are counted more narrowly than there, so
that the utilisation is never the higher for it: attention only below the diagonal and within each row (PaLM: the whole
square), the head only at the positions that carry loss (PaLM: at all), and no embedding, norm or bias (PaLM: 6 for
every parameter).
"""

from __future__ import annotations

from hpcsft.model_shape import ModelShape


def train_flops(
    shape: ModelShape, tokens: int, supervised_tokens: int, sum_squared_lengths: int, adapters: int | None = None
) -> float:
    """FLOPs of forward and backward for rows with `tokens` tokens, `supervised_tokens` of which carry loss.

    `sum_squared_lengths` is the sum over rows of their squared lengths in tokens: a row attends only to itself.
    With `adapters`, the number of LoRA's parameters, these alone learn: the backward pass of all other matrices makes
    the gradient of their input and none of the weight, and takes as much as the forward pass. So of N parameters a
    token takes 4 N instead of 6 N, and 6 for each of the adapters'.
    """
    forward = forward_flops(shape, tokens, supervised_tokens, sum_squared_lengths, adapters or 0)
    return 3 * forward - (0.0 if adapters is None else _matrices(shape, tokens, supervised_tokens))


def forward_flops(
    shape: ModelShape, tokens: int, supervised_tokens: int, sum_squared_lengths: int, adapters: int = 0
) -> float:
    """The same of the forward pass alone, as in a validation."""
    # queries x keys and weights x values: 2 x 2 operations, half of them above the diagonal
    attention = 2 * shape.num_layers * shape.query_size * sum_squared_lengths
    return _matrices(shape, tokens, supervised_tokens) + 2 * adapters * tokens + attention


def _matrices(shape: ModelShape, tokens: int, supervised_tokens: int) -> float:
    """Products of all matrices of the model with the activations: as many for the gradients of these."""
    layers = 2 * shape.num_layers * shape.layer_matmul_parameters * tokens
    return float(layers + 2 * shape.head_parameters * supervised_tokens)
