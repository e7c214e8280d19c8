"""Which attention computes, in training and in inference; and attention within each row of a packed micro batch.

Shapes: S positions of R rows end to end, A heads, D size of a head.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

BY_ROW = "sdpa_by_row"


def choose_attention(
    attention: str, dtype: str, model_class: type[PreTrainedModel] | None = None, training: bool = False
) -> str:
    """The implementation for the spec's `model.attention` on this machine, as transformers calls it.

    `auto` is flash attention, which knows rows, where it is installed and GPU, type and model are fit for it. For
    training on a GPU it is else flex attention, which skips the blocks between rows; and on CPUs, and for models that
    know neither, SDPA, in training row by row.
    """
    if attention != "auto":
        return attention
    if torch.cuda.is_available():
        new_enough = torch.cuda.get_device_capability() >= (8, 0)
        flash = dtype == "bfloat16" and new_enough and getattr(model_class, "_supports_flash_attn", False)
        if flash and importlib.util.find_spec("flash_attn"):
            return "flash_attention_2"
        if training and getattr(model_class, "_supports_flex_attn", False) and importlib.util.find_spec("triton"):
            return "flex_attention"
    return "sdpa"


def attend_by_row(model: PreTrainedModel) -> None:
    """Let `model`, if it computes attention by SDPA, do so row by row: the mask of all rows would be [S, S].

    Nothing of a row's past is left out then, and nothing is computed to be masked. Models that do not take their
    attention from transformers' interface keep the mask.
    """
    if model.config._attn_implementation == "sdpa" and model.is_backend_compatible():
        AttentionInterface.register(BY_ROW, sdpa_by_row)
        model.set_attn_implementation(BY_ROW)


def document_arguments(model: PreTrainedModel, lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
    """What the forward of `model` has to be told of the R rows, once for all its layers."""
    implementation = model.config._attn_implementation
    if implementation == BY_ROW:
        return {"row_lengths": lengths}
    if implementation.startswith("flash_attention"):
        starts = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32).to(device, non_blocking=True)
        longest = max(lengths)
        return {
            "cu_seq_lens_q": starts,
            "cu_seq_lens_k": starts,
            "max_length_q": longest,
            "max_length_k": longest,
        }
    return {}  # transformers finds the rows in position_ids, and masks


def sdpa_by_row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    row_lengths: Sequence[int],
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of `query` [1, A, S, D] to `key`, `value` [1, A', S, D] within rows of `row_lengths` positions.

    Returns [1, S, A, D], as transformers' attention functions do.
    """
    parts = zip(*(tensor.split(row_lengths, dim=2) for tensor in (query, key, value)), strict=True)
    found = [sdpa_attention_forward(module, *part, _window(part[0], sliding_window), **options)[0] for part in parts]
    return torch.cat(found, dim=1), None


def _window(query: torch.Tensor, size: int | None) -> torch.Tensor | None:
    """The mask [1, 1, L, L] of a sliding window, where the row is longer than it."""
    length = query.shape[2]
    if size is None or length <= size:
        return None
    distance = torch.arange(length, device=query.device)
    distance = distance[:, None] - distance
    return ((distance >= 0) & (distance < size))[None, None]
