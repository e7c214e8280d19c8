"""What a checkpoint leaves to the folder of the model: weights that do not learn, as all but LoRA's adapters."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from hpcsft.errors import InputError, StageError
from hpcsft.model_folder.adapter import CONFIG as ADAPTER_CONFIG
from hpcsft.model_folder.adapter import base_of, is_adapter
from hpcsft.model_folder.safetensors_header import extents

WEIGHTS = (".safetensors", ".bin", ".gguf")
CONFIGS = ("config.json", ADAPTER_CONFIG)
TENSOR_PIECES, TENSOR_PIECE_BYTES = 3, 4096
FILE_PIECES, FILE_PIECE_BYTES = 64, 1 << 16


def frozen_names(module: torch.nn.Module) -> frozenset[str]:
    """Names in the state_dict of `module` of the parameters that do not learn; a tied one has several."""
    named = module.named_parameters(remove_duplicate=False)
    return frozenset(name for name, parameter in named if not parameter.requires_grad)


def load_learnt(src: Mapping[str, torch.Tensor], dst: torch.nn.Module) -> None:
    """Load a state_dict without the frozen parameters of `dst`. StageError if it lacks others, or has unknown ones.

    Named as DeepSpeed calls it: engine.load_checkpoint(custom_load_fn=load_learnt).
    """
    missing, unexpected = dst.load_state_dict(src, strict=False)
    if wrong := sorted({*unexpected, *missing} - frozen_names(dst)):
        raise StageError(
            f"the checkpoint is of another model: {len(wrong)} weights are missing or too many, the first: {wrong[0]}",
            "have the versions of transformers or peft changed? go on with those of the first attempt",
        )


def fingerprint(folder: str) -> str:
    """Tells the model in `folder` from another that takes its place, in a moment: nothing is read as a whole.

    sha256 of the configs, and of every file with weights: its name and size; of a safetensors file the header, and
    beginning, middle and end of every tensor; of any other 64 pieces from all over it. A model that was trained
    further, merged or converted differs there, whatever its dates are; single numbers between the pieces may change
    unseen. Of an adapter the base model counts as well.
    """
    digest = hashlib.sha256()
    if is_adapter(folder):
        digest.update(fingerprint(base_of(folder)).encode())
    for file in sorted(Path(folder).iterdir()):
        if file.name in CONFIGS:
            digest.update(file.read_bytes())
        elif file.suffix in WEIGHTS:
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
            with open(file, "rb") as stream:
                for start, length in _pieces(file):
                    stream.seek(start)
                    digest.update(stream.read(length))
    return digest.hexdigest()


def _pieces(file: Path) -> Iterator[tuple[int, int]]:
    """Where the pieces of a file that count begin, and their lengths."""
    tensors: list[tuple[int, int]] = []
    if file.suffix == ".safetensors":
        with contextlib.suppress(InputError):  # not the one that was loaded, then
            tensors = sorted(extents(file).values())
    if not tensors:
        yield from _spread(0, file.stat().st_size, FILE_PIECES, FILE_PIECE_BYTES)
        return
    yield 0, tensors[0][0]
    for begin, end in tensors:
        yield from _spread(begin, end, TENSOR_PIECES, TENSOR_PIECE_BYTES)


def _spread(begin: int, end: int, count: int, length: int) -> Iterator[tuple[int, int]]:
    """`count` pieces of `length` bytes, evenly spaced from `begin` to `end`; the whole if there is not more."""
    if end - begin <= count * length:
        yield begin, end - begin
        return
    for number in range(count):
        yield begin + (end - begin - length) * number // (count - 1), length
