"""Which files of a folder are the weights, and what is in them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from hpcsft.errors import InputError
from hpcsft.model_folder.gguf import Gguf, read_gguf
from hpcsft.model_folder.reading import AGAIN, Tensor, is_named, read_object
from hpcsft.model_folder.safetensors_header import read_safetensors
from hpcsft.model_folder.torch_file import read_torch

WHOLE = ("model.safetensors", "pytorch_model.bin")
"""Weights in one file; with .index.json at its end, the index of several. Of two kinds transformers takes the first."""

OTHER_LAYOUTS = {
    "consolidated*.pth": (
        "in Meta's own layout",
        "use the folder whose name ends in -hf, or convert it with convert_llama_weights_to_hf.py of transformers 4",
    ),
    "consolidated*.safetensors": (
        "in Mistral's own layout",
        "download model*.safetensors of the same model, or the folder with -hf in its name",
    ),
    "*.h5": (
        "of TensorFlow",
        "from_pretrained(..., from_tf=True).save_pretrained(...) of transformers 4 converts them",
    ),
    "*.msgpack": (
        "of Flax",
        "from_pretrained(..., from_flax=True).save_pretrained(...) of transformers 4 converts them",
    ),
}
"""Weights that nothing here reads: what they are, and what can be done."""
PART = re.compile(r"-\d+-of-\d+\.gguf$")
LEFT_OVER = re.compile(r"(rotary_emb\.inv_freq|(attn|attention)\.(bias|masked_bias)|position_ids|rope_freqs\.weight)$")
"""Names of tables that old versions of transformers saved with the weights, and that are computed now."""


class Weights(NamedTuple):
    """The files that are read, by transformers' own choice."""

    files: list[Path]
    tensors: dict[str, Tensor]
    """By name, of all files."""
    gguf: Gguf | None = None

    @property
    def num_parameters(self) -> int:
        """Elements of all tensors; what shares its memory counts once, LEFT_OVER not at all."""
        tensors = [tensor for name, tensor in self.tensors.items() if not LEFT_OVER.search(name)]
        return sum({tensor.place: math.prod(tensor.shape) for tensor in tensors}.values())


def read_weights(file: Path) -> Weights:
    """What the headers tell of the weights in `file`, as `find_weights` names it.

    InputError if some are missing or not whole, or if a pickle asks for more than tensors.
    """
    if file.suffix == ".gguf":
        gguf = read_gguf(file)
        return Weights([file], gguf.tensors, gguf)
    weights = _read_indexed(file) if file.suffix == ".json" else Weights([file], _read(file))
    if not weights.num_parameters:
        raise InputError(f"{file}: no weights inside", AGAIN)
    return weights


def find_weights(folder: Path) -> Path:
    """The file of weights in `folder`, or the index of several; InputError if there is nothing that can be read."""
    for name in WHOLE:
        for file in (folder / name, folder / f"{name}.index.json"):
            if is_named(file):
                return file
    gguf = sorted(folder.glob("*.gguf"))
    if len(gguf) == 1 and not PART.search(gguf[0].name):
        return gguf[0]
    raise _nothing_to_read(folder, gguf)


def _nothing_to_read(folder: Path, gguf: list[Path]) -> InputError:
    if gguf:
        names = ", ".join(file.name for file in gguf[:3]) + (", ..." if len(gguf) > 3 else "")
        if PART.search(gguf[0].name):
            hint = "join them with llama.cpp's llama-gguf-split --merge"
            return InputError(f"{folder}: a GGUF file in parts, which transformers does not read: {names}", hint)
        return InputError(f"{folder}: several GGUF files: {names}", "keep the one to use in a folder of its own")
    for name in WHOLE:
        parts = sorted(folder.glob(re.sub(r"(\.\w+)$", r"-*-of-*\1", name)))
        if parts:
            message = f"{folder}: {name}.index.json is missing, which tells what is in {parts[0].name} and its like"
            return InputError(message, "download it, too")
    for pattern, (what, hint) in OTHER_LAYOUTS.items():
        if any(folder.glob(pattern)):
            return InputError(f"{folder}: the weights are {what}, which transformers does not load", hint)
    others = [file.name for pattern in ("*.safetensors", "*.bin", "*.pt", "*.pth") for file in folder.glob(pattern)]
    found = f"; there is only {', '.join(sorted(others)[:3])}" if others else ""
    return InputError(f"{folder}: no weights inside", f"expected model.safetensors or pytorch_model.bin{found}")


def _read(file: Path) -> dict[str, Tensor]:
    return read_safetensors(file) if file.suffix == ".safetensors" else read_torch(file)


def _read_indexed(index: Path) -> Weights:
    """The files that the index names, each with all that the index says is in it."""
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"{index}: no index of weights: a weight_map of names and files is expected", AGAIN)
    names = sorted(set(places.values()))
    if missing := [name for name in names if not is_named(index.parent / name)]:
        raise InputError(f"{index.parent}: {_some('file', missing)} of weights missing", "download what is missing")
    tensors: dict[str, Tensor] = {}
    for name in names:
        here = _read(index.parent / name)
        if absent := [weight for weight, place in places.items() if place == name and weight not in here]:
            message = f"{index}: names {_some('weight', absent)} that {name} does not hold"
            raise InputError(message, "index and weights are of different models or versions: download both again")
        tensors |= here
    return Weights([index.parent / name for name in names], tensors)


def _some(what: str, names: list[Any]) -> str:
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''} ({names[0]}{', ...' if len(names) > 1 else ''})"
