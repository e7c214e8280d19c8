"""Model, optimizer and schedule as one DeepSpeed engine."""

from __future__ import annotations

from typing import Any

import deepspeed
import transformers

from hpcsft.models.load import load_model
from hpcsft.spec import ExperimentSpec
from hpcsft.train.deepspeed_config import deepspeed_config
from hpcsft.train.distributed import Ranks
from hpcsft.train.randomness import seed_anew


def build_engine(spec: ExperimentSpec, ranks: Ranks, accumulation_steps: int, total_steps: int, on_gpu: bool) -> Any:
    """The engine that all ranks train with; every rank's random numbers start from the seed and its rank."""
    seed_anew(spec.seed + ranks.rank)
    model = load_model(spec.model.path, spec.model.dtype, spec.model.attention)
    if spec.model.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
        config=deepspeed_config(spec, accumulation_steps, on_gpu),
        lr_scheduler=lambda optimizer: transformers.get_scheduler(
            "constant_with_warmup" if spec.train.scheduler == "constant" else spec.train.scheduler,
            optimizer,
            num_warmup_steps=round(spec.train.warmup_ratio * total_steps),
            num_training_steps=total_steps,
        ),
        dist_init_required=False,
    )
    return engine
