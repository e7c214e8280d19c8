"""The `model` section: what is fine-tuned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from hpcsft.hub.names import model_name_or_path
from hpcsft.spec.base import Name, Path, Section


class LoraSpec(Section):
    """Low-rank adapters (Hu et al. 2021): W + alpha / rank * B A, of which A and B learn and W stays as it is."""

    rank: PositiveInt = 16
    """Rank of the adapters: A has rank rows, B as many columns."""

    alpha: PositiveInt = 32
    """An adapter counts alpha / rank."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an adapter's input that is dropped in training."""

    target_modules: Literal["all-linear"] | Annotated[list[Name], Field(min_length=1)] = "all-linear"
    """Linear layers that get an adapter, such as ["q_proj", "v_proj"]; all-linear takes every one but the output
    layer. The experts of a mixture (Mixtral, Qwen3-MoE) are no linear layers but one parameter for all of them: there
    all-linear adapts attention alone."""

    export: Literal["merged", "adapter"] = "merged"
    """What an epoch's export holds: the whole model with the adapters merged into it, or the adapters alone, as peft
    loads them beside the base model."""


class ModelSpec(Section):
    """The model to fine-tune."""

    path: Annotated[Path, AfterValidator(model_name_or_path)]
    """Folder of the model in Hugging Face format (config.json, weights, tokenizer), or a model of the Hugging Face hub
    as hub:OWNER/NAME[@REVISION], which is fetched when it is submitted. Code of a model is never run."""

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the parameters in forward and backward. With bfloat16 the optimizer keeps float32 master weights."""

    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flex_attention"] = "auto"
    """Attention implementation; auto takes flash_attention_2 where it is installed and there is a GPU, else in training
    on a GPU flex_attention, and sdpa on CPUs. In training sdpa goes row by row."""

    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: about a third more time for far less memory."""

    lora: LoraSpec | None = None
    """Train low-rank adapters instead of the whole model; null for the whole model. Needs the package peft."""

    export: Literal["native", "llama"] = "native"
    """How an epoch's model is written: native as the model came, Baichuan's with the names and the fused projection of
    the published files; or as a plain Llama, which is what Baichuan is once its head is normalised, for tools that do
    not know Baichuan."""
