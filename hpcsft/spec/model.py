"""The `model` section: what is fine-tuned."""

from __future__ import annotations

from typing import Literal

from hpcsft.spec.base import Path, Section


class ModelSpec(Section):
    """The model to fine-tune."""

    path: Path
    """Folder of the model in Hugging Face format (config.json, weights, tokenizer)."""

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the parameters in forward and backward. With bfloat16 the optimizer keeps float32 master weights."""

    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flex_attention"] = "auto"
    """Attention implementation; auto takes flash_attention_2 where it is installed and there is a GPU, else in training
    on a GPU flex_attention, and sdpa on CPUs. In training sdpa goes row by row."""

    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: about a third more time for far less memory."""
