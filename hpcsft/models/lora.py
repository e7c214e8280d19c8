"""Low-rank adapters by peft: put into a model for training, and merged, written and loaded afterwards.

Shapes: a linear layer has a weight W [O, I]; its adapter has A [r, I] and B [O, r], and adds scaling * B A to W.

The modules are peft's, put into the model in place: it stays a plain PreTrainedModel, whose adapted layers are called
NAME.base_layer, NAME.lora_A.default and NAME.lora_B.default.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from hpcsft.errors import InputError
from hpcsft.lora import check_targets
from hpcsft.model_folder.adapter import PLAIN_ONLY, PREFIX, WEIGHTS, base_of, check_adapter
from hpcsft.spec.model import LoraSpec

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

ADAPTER = "default"


def add_adapters(model: PreTrainedModel, lora: LoraSpec, seed: int = 0) -> None:
    """Give `model` adapters that learn, in the type of its weights; whatever else it has is frozen.

    To be called before the output layer is replaced, which never gets one. A starts from `seed` and nothing else, so
    that it is the same on every rank; B starts at zero, so that the model does what it did. In a model on the meta
    device the adapters are there too. InputError if `lora` names layers that the model does not have.
    """
    from peft import LoraConfig, inject_adapter_in_model

    head = model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if _is_linear(module) and module is not head]
    check_targets(lora.target_modules, linear)
    ends = sorted({name.rpartition(".")[2] for name in linear})
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=ends if lora.target_modules == "all-linear" else list(lora.target_modules),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(config, model, ADAPTER)


def merged_state(model: PreTrainedModel, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The base model's state_dict with the adapters merged into it, from one of `model`, with whole tensors.

    Sums are made in float32 and rounded once. Tied tensors stay tied. `state` is empty afterwards: there is no second
    copy of the weights.
    """
    merged = {}
    scaling = {name: layer.scaling[ADAPTER] for name, layer in _adapted(model)}
    adapters = {name: state.pop(name) for name in list(state) if _of_adapter(name)}
    for name in list(state):
        tensor = state.pop(name)
        owner, _, rest = name.partition(".base_layer.")
        if rest == "weight":
            a, b = (adapters[f"{owner}.{part}.{ADAPTER}.weight"] for part in ("lora_A", "lora_B"))
            tensor = _merged(tensor, a, b, scaling[owner])
        merged[f"{owner}.{rest}" if rest else name] = tensor
    return merged


def write_adapter(model: PreTrainedModel, state: dict[str, torch.Tensor], folder: Path, base_path: str) -> None:
    """Write the adapters of `model`, with the values in its `state`, to `folder`, which exists, as peft does.

    `base_path` is the folder of the base model, to which plain peft will go as well.
    """
    config = copy.copy(model.peft_config[ADAPTER])
    config.base_model_name_or_path = os.path.abspath(base_path)
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)  # peft's set would be in another order each time
    config.save_pretrained(folder)
    tensors = {
        PREFIX + name.replace(f".{ADAPTER}.", "."): tensor.contiguous()
        for name, tensor in state.items()
        if _of_adapter(name)
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_adapter(path: str, load_base: Callable[[str], PreTrainedModel]) -> PreTrainedModel:
    """The base model of the adapter in the folder `path`, as `load_base` loads it, with the adapter merged into it.

    A plain model, as `merged_state` would have it exported. InputError if the adapter is damaged, does not fit, or is
    of a kind that does more than add scaling * B A to weights.
    """
    check_adapter(path)
    from peft import LoraConfig, inject_adapter_in_model

    base = base_of(path)
    model = load_base(base)
    try:
        config = LoraConfig.from_pretrained(path)
        config.inference_mode = False  # peft would warn
        with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
            inject_adapter_in_model(config, model, ADAPTER)
        _check_kind(model)
        _fill(model, load_file(os.path.join(path, WEIGHTS)))
        _merge(model)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{path}: the adapter cannot be merged into {base}: {error}", PLAIN_ONLY) from None
    return model


def _check_kind(model: PreTrainedModel) -> None:
    """ValueError if an adapter does anything but add scaling * B A to a weight."""
    for name, layer in _adapted(model):
        if layer.lora_variant or layer.lora_bias[ADAPTER] or not _is_linear(layer.get_base_layer()):
            raise ValueError(f"{name} has an adapter of another kind")


def _fill(model: PreTrainedModel, saved: dict[str, torch.Tensor]) -> None:
    """Give the adapters the values that were `saved`; ValueError if these are not the very same ones."""
    weights = {name: weight for name, weight in model.named_parameters() if _of_adapter(name)}
    wanted = {PREFIX + name.replace(f".{ADAPTER}.", "."): weight for name, weight in weights.items()}
    if odd := sorted(wanted.keys() ^ saved.keys()):
        raise ValueError(f"{len(odd)} weights are missing or too many, the first: {odd[0]}")
    for name, weight in wanted.items():
        if weight.shape != saved[name].shape:
            raise ValueError(f"{name} is {list(saved[name].shape)} instead of {list(weight.shape)}")
        weight.data = saved[name]


def _merge(model: PreTrainedModel) -> None:
    """Merge the adapters of `model` into its weights, and leave nothing of peft in it."""
    for name, layer in list(_adapted(model)):
        base = layer.get_base_layer()
        a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        base.weight.data = _merged(base.weight.data, a.data, b.data, layer.scaling[ADAPTER])
        model.set_submodule(name, base)
    del model.peft_config
    model.requires_grad_(True)


@torch.no_grad()
def _merged(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float) -> torch.Tensor:
    return torch.addmm(weight.float(), b.float(), a.float(), alpha=scaling).to(weight.dtype)


def _adapted(model: torch.nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _of_adapter(name: str) -> bool:
    """Is it the name of a parameter that an adapter has brought?"""
    return ".lora_" in name


def _is_linear(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear)
