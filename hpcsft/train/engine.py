"""Model, optimizer and schedule as one DeepSpeed engine."""

from __future__ import annotations

from typing import Any

import deepspeed
import torch
import transformers
from transformers import PreTrainedModel

from hpcsft.errors import HpcsftError, InputError, StageError
from hpcsft.models.hollow import filled
from hpcsft.models.load import load_for_training
from hpcsft.spec import ExperimentSpec
from hpcsft.train.distributed import Ranks
from hpcsft.train.randomness import seed_anew


def build_model(spec: ExperimentSpec, ranks: Ranks) -> PreTrainedModel:
    """The model that all ranks train, its weights on rank 0 alone: `build_engine` hands them out.

    So the folder is read once, and one rank has memory for a copy. Every rank's random numbers start from the seed and
    its rank. If the model does not load, all ranks raise InputError.
    """
    seed_anew(spec.seed + ranks.rank)
    own, refused = spec.model, None
    try:
        model = load_for_training(own.path, own.dtype, own.attention, own.lora, spec.seed, read=ranks.leader)
    except Exception as error:  # the other ranks wait for this one's weights
        refused = error
    for others in filter(None, ranks.gather(refused and _told(refused))):
        raise refused or InputError(*others)
    _check_alike(model, ranks)
    if spec.model.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def build_engine(
    model: PreTrainedModel, spec: ExperimentSpec, config: dict[str, Any], total_steps: int, device: torch.device
) -> Any:
    """The engine that all ranks train with. `config` is DeepSpeed's, as `deepspeed_config` makes it."""
    distribute(model, spec, config, device)
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
        config=config,
        lr_scheduler=lambda optimizer: transformers.get_scheduler(
            "constant_with_warmup" if spec.train.scheduler == "constant" else spec.train.scheduler,
            optimizer,
            num_warmup_steps=round(spec.train.warmup_ratio * total_steps),
            num_training_steps=total_steps,
        ),
        dist_init_required=False,
    )
    if spec.train.zero_stage == 0 and spec.model.dtype == "bfloat16":
        _start_anew(engine.optimizer)
    return engine


def _told(error: Exception) -> tuple[str, str | None]:
    if isinstance(error, HpcsftError):
        return error.message, error.hint
    return f"another rank could not build the model: {type(error).__name__}: {error}", "its log has the traceback"


def distribute(model: PreTrainedModel, spec: ExperimentSpec, config: dict[str, Any], device: torch.device) -> None:
    """Give every rank memory for its weights on `device`; under ZeRO 3 its part of them, else DeepSpeed sends them."""
    if spec.train.zero_stage == 3:
        _shard(model, config, device)
    else:
        for _ in filled(model, device):
            pass


def _start_anew(optimizer: Any) -> None:
    """Undo the step with which DeepSpeed 0.19 makes room for Adam's moments without ZeRO: it is counted, and decays."""
    for masters, weights in zip(optimizer.fp32_groups, optimizer.fp16_groups, strict=True):
        for master, weight in zip(masters, weights, strict=True):
            master.data.copy_(weight)
            optimizer.optimizer.state[master]["step"].zero_()


def _shard(model: PreTrainedModel, config: dict[str, Any], device: torch.device) -> None:
    """Send each rank its part of every weight, one after the other: `initialize` would move the whole model first."""
    offload = config["zero_optimization"].get("offload_param", {})
    model.parameters = lambda recurse=True: filled(model, device)  # whole on `device` only while it is its turn
    try:
        deepspeed.zero.Init(
            module=model,
            config_dict_or_path=config,
            remote_device=offload.get("device"),
            pin_memory=offload.get("pin_memory", False),
        )
    finally:
        del model.parameters
    for buffer in model.buffers():
        buffer.data = buffer.data.to(device)


def _check_alike(model: PreTrainedModel, ranks: Ranks) -> None:
    """Give every rank the buffers of rank 0; StageError on all if its parameters are not what the others wait for."""
    names: dict[int, list[str]] = {}  # by identity: tied weights are one
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    shapes = {name: (tuple(parameter.shape), parameter.dtype) for name, parameter in model.named_parameters()}
    mine = (sorted(names.values()), list(shapes.items()), sorted(name for name, _ in model.named_buffers()))
    theirs = ranks.from_leader(lambda: mine)
    if not ranks.all_agree(mine == theirs):
        raise StageError(
            "ranks see different models: the weights on rank 0 are not those that config.json describes",
            "does every node see the same files in model.path?",
        )
    buffers = ranks.from_leader(lambda: dict(model.named_buffers()))
    for name, buffer in model.named_buffers():
        buffer.data = buffers[name]
