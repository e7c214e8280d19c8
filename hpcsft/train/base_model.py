"""What a checkpoint leaves to the folder of the model: weights that do not learn, as all but LoRA's adapters."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from hpcsft.errors import StageError
from hpcsft.models.lora import base_of, is_adapter

WEIGHTS = (".safetensors", ".bin", ".gguf")
PIECE_BYTES = 1 << 20


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

    sha256 of config.json and of name, size, beginning and end of every file with weights: a model that was trained
    further or converted differs there, whatever its dates are. Of an adapter the base model counts as well.
    """
    digest = hashlib.sha256()
    if is_adapter(folder):
        digest.update(fingerprint(base_of(folder)).encode())
    for file in sorted(Path(folder).iterdir()):
        if file.suffix in WEIGHTS or file.name == "config.json":
            with open(file, "rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                digest.update(f"{file.name} {size}\n".encode())
                for start in (0, max(0, size - PIECE_BYTES)):
                    stream.seek(start)
                    digest.update(stream.read(PIECE_BYTES))
    return digest.hexdigest()
