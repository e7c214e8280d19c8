"""Low-rank adapters as the login node sees them: which layers get one, how large they are, whether peft is there."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from hpcsft.errors import InputError
from hpcsft.model_shape import FAMILIES, ModelShape
from hpcsft.spec.model import LoraSpec

LIKE_LLAMA = FAMILIES.keys() - {"phi3"}
"""Model types whose layers have the linear layers of `layer_matrices`; Phi-3's are fewer and wider."""


def layer_matrices(shape: ModelShape) -> dict[str, tuple[int, int]]:
    """Name within a layer -> inputs and outputs of its linear layers."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    return {
        "self_attn.q_proj": (hidden, shape.query_size),
        "self_attn.k_proj": (hidden, shape.kv_size),
        "self_attn.v_proj": (hidden, shape.kv_size),
        "self_attn.o_proj": (shape.query_size, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }


def is_target(name: str, wanted: str | list[str]) -> bool:
    """Does the linear layer with the dotted name `name` get an adapter? By peft's own rule: by the end of the name."""
    return wanted == "all-linear" or any(name == end or name.endswith(f".{end}") for end in wanted)


def adapted(shape: ModelShape, lora: LoraSpec) -> Iterator[tuple[int, int]]:
    """Inputs and outputs of every linear layer of the model that gets an adapter."""
    for layer in range(shape.num_layers):
        for name, sizes in layer_matrices(shape).items():
            if is_target(f"model.layers.{layer}.{name}", lora.target_modules):
                yield sizes


def adapter_parameters(shape: ModelShape, lora: LoraSpec) -> int:
    """Parameters that learn: A has rank x inputs, B outputs x rank."""
    return sum(lora.rank * (inputs + outputs) for inputs, outputs in adapted(shape, lora))


def check_lora(lora: LoraSpec, model_type: str | None, shape: ModelShape | None) -> None:
    """InputError if `model.lora` asks for what training will not find: peft, or layers of a model like Llama."""
    if importlib.util.find_spec("peft") is None:
        raise InputError("model.lora: not installed: peft", "pip install peft, or set model.lora to null")
    if shape and model_type in LIKE_LLAMA:
        there = [f"model.layers.{layer}.{name}" for layer in range(shape.num_layers) for name in layer_matrices(shape)]
        check_targets(lora.target_modules, there)


def check_targets(wanted: str | list[str], there: list[str]) -> None:
    """InputError if `wanted` names linear layers that are not among those `there`."""
    if wanted == "all-linear":
        return
    if unknown := [end for end in wanted if not any(is_target(name, [end]) for name in there)]:
        ends = dict.fromkeys(name.rpartition(".")[2] for name in there)
        raise InputError(
            f"model.lora.target_modules: no linear layer with the name {', '.join(unknown)}",
            f"there are {', '.join(ends)}",
        )
