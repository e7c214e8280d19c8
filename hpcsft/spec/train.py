"""The `train` section: how it learns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from hpcsft.spec.base import Name, Section
from hpcsft.spec.overrides import find_problems


class CheckpointSpec(Section):
    """When training states are saved."""

    every_steps: PositiveInt = 100
    """Save after so many steps; each epoch's end saves too."""

    every_minutes: PositiveFloat | None = None
    """Also save when so many minutes have passed since the last save."""

    background: bool = True
    """Write periodic checkpoints from a copy in the memory of the host, while training goes on."""

    keep_last: PositiveInt = 2
    """Keep so many checkpoints; older ones are removed after a newer one is complete."""


class TrainSpec(Section):
    """Optimization and its distribution over ranks."""

    epochs: Annotated[int, Field(gt=0, le=1000)] = 3
    """Passes over the training rows. Each ends with a validation loss and an export of the model."""

    max_steps: PositiveInt | None = None
    """Stop after so many optimizer steps, or where the epoch ends if that is earlier; null for no such limit. It needs
    epochs 1: that epoch ends there, with its validation loss and export, and the learning rate's course fits it."""

    global_batch_size: PositiveInt = 64
    """Rows of max_length per optimizer step over all ranks; accumulation steps are derived from it."""

    micro_batch_size: PositiveInt = 2
    """Rows of max_length that one rank computes at a time."""

    optimizer: Literal["adamw"] = "adamw"
    """AdamW with betas 0.9 and 0.999, epsilon 1e-8."""

    learning_rate: PositiveFloat = 1e-5
    """Peak learning rate."""

    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after the warm-up: cosine or linear to zero, or constant."""

    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of all steps in which the learning rate rises from zero."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay."""

    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Clip the global gradient norm to this; 0 for no clipping."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    """What DeepSpeed shards over the ranks: 1 optimizer states, 2 also gradients, 3 also parameters."""

    offload: Literal["none", "optimizer", "all"] = "none"
    """Keep optimizer states (optimizer), or also parameters (all, ZeRO 3 only), in the memory of the host."""

    master_weights: bool = True
    """Keep float32 master weights in the optimizer. Without them (false) a bfloat16 step at 1e-5 leaves 98% of the
    weights as they were: only for the faithful reproduction of a project that trained so."""

    max_skipped_steps: NonNegativeInt = 0
    """Pass over at most so many steps whose loss or gradient is not finite; 0 ends the run at the first. Nothing of
    such a step is learnt, and none is ever saved."""

    trackers: list[Literal["tensorboard", "wandb"]] = []
    """Where metrics go besides metrics.jsonl: RUN_DIR/tensorboard; Weights & Biases, offline in RUN_DIR/wandb unless
    WANDB_MODE says otherwise."""

    wandb_project: Name = "hpcsft"
    """Project of the run at Weights & Biases."""

    deepspeed: dict[str, Any] = {}
    """Further DeepSpeed settings, merged over the derived ones. Keys that the spec decides are refused."""

    hang_after_s: PositiveFloat | None = None
    """End and restart an attempt in which no step or validation batch ends for so many seconds; null derives it from
    those so far."""

    checkpoint: CheckpointSpec = CheckpointSpec()
    """When training states are saved."""

    @field_validator("max_steps")
    @classmethod
    def _one_epoch(cls, value: int | None, info: ValidationInfo) -> int | None:
        epochs = info.data.get("epochs", 1)
        if value is not None and epochs != 1:
            raise ValueError(f"needs train.epochs 1, given {epochs}: nobody knows yet which epochs would be reached")
        return value

    @field_validator("deepspeed")
    @classmethod
    def _no_second_source(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if problems := list(find_problems(value, info.data.get("zero_stage"))):
            raise ValueError("; ".join(problems))
        return value

    @field_validator("trackers")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("each tracker once")
        return value

    def epoch_steps(self, whole_pass: int) -> int:
        """Optimizer steps of one epoch, where a pass over all rows takes `whole_pass`."""
        return whole_pass if self.max_steps is None else min(whole_pass, self.max_steps)
