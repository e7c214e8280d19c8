"""The folder of an adapter, as peft writes it: which model it belongs to, and whether it can be merged into that."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcsft.errors import InputError
from hpcsft.model_folder.reading import AGAIN, Tensor, is_named, read_object
from hpcsft.model_folder.safetensors_header import read_safetensors
from hpcsft.model_folder.weights import find_weights, read_weights

CONFIG, WEIGHTS, OLD_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
"""What peft puts before the names of a model's weights."""
A, B = ".lora_A.weight", ".lora_B.weight"
"""How the names of an adapter's weights end."""
DOES_MORE = {
    "use_dora": "DoRA scales the weights as well",
    "modules_to_save": "whole layers were trained beside it",
    "bias": "biases were trained beside it",
    "lora_bias": "it has biases of its own",
    "trainable_token_indices": "rows of the embedding were trained beside it",
    "target_parameters": "it adapts parameters that are no linear layers",
    "layer_replication": "it repeats layers",
    "alora_invocation_tokens": "it works on some of the tokens only",
    "arrow_config": "it chooses among several",
    "use_qalora": "it pools its inputs",
    "use_bdlora": "its matrices are made of blocks",
}
"""Settings that make an adapter do more than add scaling * B A to weights."""
PLAIN_ONLY = "LoRA without further options is supported; peft's merge_and_unload makes a model of any other adapter"
OTHER_BASE = "base_model_name_or_path must be the model that the adapter was trained with"


def is_adapter(folder: str | Path) -> bool:
    """Does `folder` hold an adapter rather than a model?"""
    return is_named(Path(folder, CONFIG))


def base_of(folder: str | Path) -> str:
    """The folder of the adapter's base model, which may be an adapter in its turn.

    InputError if there is none. Its path is absolute: peft takes another to be relative to wherever it is run, or for a
    name on the hub.
    """
    base = _stated_base(folder)
    seen = {os.path.realpath(folder)}
    following = base
    while True:
        if os.path.realpath(following) in seen:
            message = f"{folder}: the adapter has no base model: base_model_name_or_path leads back to {following}"
            raise InputError(message, _name_one(folder))
        if not is_adapter(following):
            return base
        seen.add(os.path.realpath(following))
        following = _stated_base(following)


def check_adapter(folder: str | Path) -> None:
    """InputError unless the adapter is whole and can be merged into its base model, which is whole."""
    folder = Path(folder)
    if importlib.util.find_spec("peft") is None:
        raise InputError(f"{folder}: an adapter, and peft is not installed", "pip install peft")
    config = _config(folder)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise InputError(f"{folder}: an adapter of type {kind}, which cannot be merged", PLAIN_ONLY)
    for name, what in DOES_MORE.items():
        if config.get(name) not in (None, False, "none") and config[name] != []:
            raise InputError(f"{folder}: the adapter cannot be merged: {what} ({name})", PLAIN_ONLY)
    _check_fit(_read(folder), folder, Path(base_of(folder)))


def _read(folder: Path) -> dict[str, Tensor]:
    """Every tensor by its name. InputError if the adapter lacks weights, or has others than LoRA's."""
    file = folder / WEIGHTS
    if not is_named(file):
        message = f"{folder}: no weights inside: {WEIGHTS} is missing"
        if is_named(folder / OLD_WEIGHTS):
            hint = f"load it with peft, and save it again as safetensors: save_pretrained does; {OLD_WEIGHTS} is old"
            raise InputError(message, hint)
        raise InputError(message, AGAIN)
    tensors = read_safetensors(file)
    if odd := sorted(name for name in tensors if not name.endswith((A, B))):
        message = f"{folder}: the adapter cannot be merged: it holds more than A and B of linear layers: {odd[0]}"
        raise InputError(message, PLAIN_ONLY)
    return tensors


def _check_fit(tensors: Mapping[str, Tensor], folder: Path, base: Path) -> None:
    """InputError if A [r, I] and B [O, r] do not fit a weight [O, I] of the base model, as far as its names are known.

    Names may be others: files of Baichuan have one matrix for queries, keys and values; and an adapter's base may be an
    adapter, whose own base counts.
    """
    while is_adapter(base):
        base = Path(base_of(base))
    if read_object(base / "config.json").get("quantization_config"):
        return  # packed weights have other shapes
    weights = read_weights(find_weights(base)).tensors
    known = {_in_any_layer(name) for name in weights}
    for name, a in tensors.items():
        if not name.endswith(A):
            continue
        layer = name.removesuffix(A)
        b = tensors.get(layer + B)
        if b is None or len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
            shapes = f"{list(a.shape)} and {list(b.shape) if b else 'none'}"
            raise InputError(f"{folder}: A and B of {layer} do not fit each other: {shapes}", AGAIN)
        weight = f"{layer.removeprefix(PREFIX)}.weight"
        if weight not in weights and _in_any_layer(weight) in known:
            raise InputError(f"{folder}: the adapter does not fit {base}, which has no {weight}", OTHER_BASE)
        wanted = (b.shape[0], a.shape[1])
        if weight in weights and weights[weight].shape != wanted:
            found = f"{weight} is {list(weights[weight].shape)} there, the adapter's is {list(wanted)}"
            raise InputError(f"{folder}: the adapter does not fit {base}: {found}", OTHER_BASE)


def _in_any_layer(name: str) -> str:
    return re.sub(r"\.\d+\.", ".N.", name)


def _stated_base(folder: str | Path) -> str:
    base = _config(folder).get("base_model_name_or_path")
    if not isinstance(base, str) or not os.path.isabs(base):
        message = f"{folder}: the base model of this adapter is '{base}', which is no absolute path"
        raise InputError(message, f"{_name_one(folder)}; what is on the hub must be downloaded first")
    if not os.path.isdir(base):
        message = f"{folder}: the base model of this adapter is not there: no such folder: {base}"
        raise InputError(message, _name_one(folder))
    return base


def _name_one(folder: str | Path) -> str:
    return f"set base_model_name_or_path in {folder}/{CONFIG} to the absolute path of the base model's folder"


def _config(folder: str | Path) -> dict[str, Any]:
    return read_object(Path(folder, CONFIG), "adapter")
