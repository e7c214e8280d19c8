"""What a plan will cost: bytes per rank by part, and GPU-hours at most. Pure.

Bytes per parameter of the model states are those of Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training
Trillion Parameter Models" (2020), section 3: with 16-bit parameters 2 + 2 + 12, sharded by stage over the ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpcsft.plan import Plan
from hpcsft.records import Record
from hpcsft.spec import ExperimentSpec

GIB = 1024**3
SAVE_BYTES_PER_S = 500e6
"""What one node writes to a shared filesystem, before anything was measured."""
STOP_MARGIN_S = 60
"""From the signal to the end of the job, besides the step in progress and the save."""


class MemoryEstimate(Record):
    """Model states of one rank in the memory of its GPU (or process), in bytes. Activations and buffers come on top."""

    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    host_bytes: int
    """What train.offload keeps in the memory of the host instead."""
    checkpoint_bytes: int
    """One checkpoint of all ranks together."""

    @property
    def states_bytes(self) -> int:
        """Parameters, gradients and optimizer states of one rank."""
        return self.parameters_bytes + self.gradients_bytes + self.optimizer_bytes


def estimate_memory(spec: ExperimentSpec, world_size: int, num_parameters: int) -> MemoryEstimate:
    """Model states of one rank for `num_parameters` parameters over `world_size` ranks."""
    half = spec.model.dtype == "bfloat16"
    element_bytes = 2 if half else 4
    optimizer_bytes = 12 if half else 8  # master weights and two moments, or the moments alone
    stage = spec.train.zero_stage

    def shard(num_bytes: int, from_stage: int) -> int:
        return -(-num_bytes // world_size) if stage >= from_stage else num_bytes

    parameters = shard(num_parameters * element_bytes, 3)
    optimizer = shard(num_parameters * optimizer_bytes, 1)
    away = {"none": (0, 0), "optimizer": (0, optimizer), "all": (parameters, optimizer)}[spec.train.offload]
    return MemoryEstimate(
        parameters_bytes=parameters - away[0],
        gradients_bytes=shard(num_parameters * element_bytes, 2),
        optimizer_bytes=optimizer - away[1],
        host_bytes=sum(away),
        checkpoint_bytes=num_parameters * (element_bytes + optimizer_bytes),
    )


def checkpoint_bytes(spec: ExperimentSpec, num_parameters: int | None) -> int | None:
    """Size of one checkpoint of all ranks together; None for a model of unknown size."""
    return estimate_memory(spec, 1, num_parameters).checkpoint_bytes if num_parameters else None


def gpu_hours_limit(plan: Plan) -> float:
    """GPU-hours if every job ran to its time limit."""
    return sum(stage.gpu_hours_limit for stage in plan.stages)


def with_signal_lead(plan: Plan, checkpoint_bytes: int | None) -> Plan:
    """The plan with how early Slurm tells training that its time limit comes, guessed from the size of a checkpoint.

    Training itself also looks at the clock, with the step and the save as it measures them.
    """
    train = plan.stage("train")
    save_s = (checkpoint_bytes or 0) / train.nodes / SAVE_BYTES_PER_S
    return _with_lead(plan, round(STOP_MARGIN_S + 2 * save_s), f"writing a checkpoint may take {save_s:.0f} s")


def with_measured_lead(plan: Plan, journal: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]]) -> Plan:
    """The same from what earlier attempts have measured; the plan as it is if they have not."""
    saves_s = [row["took_s"] for row in journal if row["event"] == "saved"]
    if not saves_s or not metrics:
        return plan
    step_s = max(row["tokens"] / row["tokens_per_s"] for row in metrics)
    told = f"a step took up to {step_s:.0f} s and a checkpoint {max(saves_s):.0f} s"
    return _with_lead(plan, round(STOP_MARGIN_S + 2 * step_s + 1.5 * max(saves_s)), told)


def _with_lead(plan: Plan, lead_s: int, because: str) -> Plan:
    train = plan.stage("train")
    limit_s = 60 * train.time_min
    signal_s = min(lead_s, limit_s // 2)  # a signal ahead of the start would come at once
    warnings = [warning for warning in plan.warnings if not warning.startswith("cluster.train.time")]
    if signal_s < lead_s:
        warnings.append(
            f"cluster.train.time {train.time} is short: {because}, so that the job should be told to stop "
            f"{lead_s} s before its end; it will be told {signal_s} s before, and may lose steps"
        )
    stages = [s.model_copy(update={"signal_s": signal_s}) if s.name == "train" else s for s in plan.stages]
    return plan.model_copy(update={"stages": stages, "warnings": warnings})
