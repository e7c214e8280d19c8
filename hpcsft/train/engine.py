"""Model, optimizer and schedule as one DeepSpeed engine."""

from __future__ import annotations

from typing import Any

import deepspeed
import torch
import transformers
from transformers import PreTrainedModel

from hpcsft.models.load import load_for_training
from hpcsft.spec import ExperimentSpec
from hpcsft.train.distributed import Ranks
from hpcsft.train.randomness import seed_anew


def build_model(spec: ExperimentSpec, ranks: Ranks) -> PreTrainedModel:
    """The model that all ranks train; every rank's random numbers start from the seed and its rank."""
    seed_anew(spec.seed + ranks.rank)
    model = load_for_training(spec.model.path, spec.model.dtype, spec.model.attention)
    if spec.model.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def build_engine(
    model: PreTrainedModel, spec: ExperimentSpec, config: dict[str, Any], total_steps: int, device: torch.device
) -> Any:
    """The engine that all ranks train with. `config` is DeepSpeed's, as `deepspeed_config` makes it."""
    if spec.train.zero_stage == 3:
        _shard(model, config, device)
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


def _start_anew(optimizer: Any) -> None:
    """Undo the step with which DeepSpeed 0.19 makes room for Adam's moments without ZeRO: it is counted, and decays."""
    for masters, weights in zip(optimizer.fp32_groups, optimizer.fp16_groups, strict=True):
        for master, weight in zip(masters, weights, strict=True):
            master.data.copy_(weight)
            optimizer.optimizer.state[master]["step"].zero_()


def _shard(model: PreTrainedModel, config: dict[str, Any], device: torch.device) -> None:
    """Leave each rank its part of every weight, one after the other: `initialize` would move the whole model first."""
    offload = config["zero_optimization"].get("offload_param", {})
    deepspeed.zero.Init(
        module=model,
        config_dict_or_path=config,
        remote_device=offload.get("device"),
        pin_memory=offload.get("pin_memory", False),
    )
    for buffer in model.buffers():
        buffer.data = buffer.data.to(device)
