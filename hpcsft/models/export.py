"""A trained model as a Hugging Face folder that loads anywhere."""

from __future__ import annotations

import copy
import errno
import json
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from hpcsft.models import lora
from hpcsft.models.llamafy import llamafied
from hpcsft.records import fsync_folder
from hpcsft.spec.model import ModelSpec


def gather_state(
    model: PreTrainedModel, zero_stage: int, keep: bool, trained_only: bool = False
) -> dict[str, torch.Tensor]:
    """All parameters and buffers on the CPU, whole also under ZeRO 3; empty where `keep` is false.

    Every rank must call it: under ZeRO 3 each parameter is gathered by all, one at a time. So the rank that keeps them
    has memory for a copy of the model, and the others for one parameter; what is whole on the CPU is not copied. With
    `trained_only` frozen ones are left out.
    """
    tensors = model.state_dict(keep_vars=True)
    whole: dict[int, torch.Tensor] = {}  # by identity: tied weights are gathered once, and stay tied
    for tensor in tensors.values():
        if id(tensor) not in whole and (tensor.requires_grad or not trained_only):
            gathered = _gathered(tensor, keep) if zero_stage == 3 else tensor.detach()
            whole[id(tensor)] = gathered.to("cpu") if keep else gathered
    return {name: whole[id(tensor)] for name, tensor in tensors.items() if id(tensor) in whole} if keep else {}


OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Settings of generation that mean nothing without do_sample."""


class SpecialIds(NamedTuple):
    """What the configs of an exported model say of special tokens."""

    bos: int | None
    ends: Collection[int]
    """An answer ends at any of them, and `generate` stops there wherever the model is loaded."""


def write_model(
    model: PreTrainedModel, state: dict[str, torch.Tensor], spec: ModelSpec, ids: SpecialIds, folder: Path
) -> None:
    """Write `model` with the weights `state` into `folder`, in the form that `spec` asks for."""
    if spec.lora and spec.lora.export == "adapter":
        lora.write_adapter(model, state, folder, spec.path)
        return
    state = lora.merged_state(model, state) if spec.lora else dict(state)
    config = copy.deepcopy(model.config)
    generation = _savable(copy.deepcopy(model.generation_config))
    for settings in (config, generation):
        _settle(settings, ids, config.vocab_size)
    if spec.export == "llama":
        config, state = llamafied(config, state)
    with init_empty_weights(include_buffers=True):
        form = AutoModelForCausalLM.from_config(config)  # the class that writes it: the state has the values
    form.generation_config = generation
    form.save_pretrained(folder, state_dict=state)
    _tell_older_releases(folder / "config.json")


def publish_folder(
    folder: Path,
    write: Callable[[Path], None],
    attempt: object = "",
    before_publish: Callable[[], None] = lambda: None,
) -> None:
    """Let `write` fill `folder`, in one step: it exists only once it is whole.

    A folder that is there stays as it is. `attempt` names the writer, `before_publish` may still raise; what other
    attempts have left unfinished is removed.
    """
    for leftover in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}.{attempt}.partial")
    folder.parent.mkdir(exist_ok=True)  # but not the run directory, if that has gone
    partial.mkdir()
    write(partial)
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


def _gathered(tensor: torch.Tensor, keep: bool) -> torch.Tensor:
    import deepspeed

    with deepspeed.zero.GatheredParameters([tensor], modifier_rank=None):
        return tensor.detach().clone() if keep else torch.empty(0)


def _savable(generation: GenerationConfig) -> GenerationConfig:
    """`generation` without what transformers loads and does not save: settings of sampling where nothing is sampled."""
    if not generation.do_sample:
        for name in OF_SAMPLING:
            setattr(generation, name, None)
    try:
        generation.validate(strict=True)
    except ValueError:
        return GenerationConfig(pad_token_id=generation.pad_token_id)
    return generation


def _tell_older_releases(file: Path) -> None:
    """Write into a config.json what transformers 4 goes by: 5 has put rotary settings and type under other names."""
    config = json.loads(file.read_text(encoding="utf-8"))
    rope = config.get("rope_parameters") or {}
    if not any(isinstance(value, dict) for value in rope.values()):  # or else they are of several kinds of layers
        scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
        scaled = scaling.get("rope_type", "default") != "default"
        config |= {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}
        config |= {"rope_scaling": scaling} if scaled else {}
    config |= {"torch_dtype": config["dtype"]} if "dtype" in config else {}
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _settle(settings: Any, ids: SpecialIds, vocab_size: int) -> None:
    """Correct special tokens in a config or generation config: early folders of Llama have them wrong."""
    settings.bos_token_id = ids.bos
    stated = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    if not set(ids.ends) <= set(stated):
        settings.eos_token_id = sorted(ids.ends) if len(ids.ends) > 1 else next(iter(ids.ends))
    if settings.pad_token_id is not None and not 0 <= settings.pad_token_id < vocab_size:
        settings.pad_token_id = None
