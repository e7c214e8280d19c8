"""A trained model as a Hugging Face folder that loads anywhere."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from hpcsft.records import fsync_folder


def gather_state(model: PreTrainedModel, zero_stage: int, keep: bool) -> dict[str, torch.Tensor]:
    """All parameters and buffers on the CPU, whole also under ZeRO 3; empty where `keep` is false.

    Every rank must call it: under ZeRO 3 each parameter is gathered by all, one at a time.
    """
    tensors = model.state_dict(keep_vars=True)
    whole: dict[int, torch.Tensor] = {}  # by identity: tied weights are gathered once, and stay tied
    for tensor in tensors.values():
        if id(tensor) not in whole:
            gathered = _gathered(tensor, keep) if zero_stage == 3 else tensor.detach()
            whole[id(tensor)] = gathered.to("cpu", copy=True) if keep else gathered
    return {name: whole[id(tensor)] for name, tensor in tensors.items()} if keep else {}


def _gathered(tensor: torch.Tensor, keep: bool) -> torch.Tensor:
    import deepspeed

    with deepspeed.zero.GatheredParameters([tensor], modifier_rank=None):
        return tensor.detach().clone() if keep else torch.empty(0)


def write_model(
    model: PreTrainedModel,
    state: dict[str, torch.Tensor],
    tokenizer: Any,
    folder: Path,
    attempt: object = "",
    before_publish: Callable[[], None] = lambda: None,
) -> None:
    """Write config, safetensors and tokenizer to `folder` in one step: it exists only once it is whole.

    A folder that is there stays as it is. `attempt` names the writer, `before_publish` may still raise; what other
    attempts have left unfinished is removed.
    """
    for leftover in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}.{attempt}.partial")
    partial.mkdir(parents=True)
    model.save_pretrained(partial, state_dict=dict(state))
    tokenizer.save_pretrained(partial)
    for file in (path for path in partial.rglob("*") if path.is_file()):
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
    fsync_folder(partial)
    before_publish()
    try:
        os.rename(partial, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(partial)  # another attempt was quicker: the same bits
    fsync_folder(folder.parent)
