"""What a plan will cost: bytes per rank by part, and GPU-hours at most. Pure.

Bytes per parameter of the model states are those of Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training
Trillion Parameter Models" (2020), section 3: with 16-bit parameters 2 + 2 + 12, sharded by stage over the ranks.
"""

from __future__ import annotations

from hpcsft.plan import Plan
from hpcsft.records import Record
from hpcsft.spec import ExperimentSpec

GIB = 1024**3


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


def gpu_hours_limit(plan: Plan) -> float:
    """GPU-hours if every job ran to its time limit."""
    return sum(stage.gpu_hours_limit for stage in plan.stages)
