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


def train_flops(shape: ModelShape, tokens: int, supervised_tokens: int, sum_squared_lengths: int) -> float:
    """FLOPs of forward and backward for rows with `tokens` tokens, `supervised_tokens` of which carry loss.

    `sum_squared_lengths` is the sum over rows of their squared lengths in tokens: a row attends only to itself.
    """
    layers = 6 * shape.num_layers * shape.layer_matmul_parameters * tokens
    head = 6 * shape.head_parameters * supervised_tokens
    # queries x keys and weights x values: 2 x 2 operations forward, 8 backward, half of them above the diagonal
    attention = 6 * shape.num_layers * shape.query_size * sum_squared_lengths
    return float(layers + head + attention)
