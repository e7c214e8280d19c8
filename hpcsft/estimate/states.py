"""Model states of one rank: parameters, gradients and optimizer, sharded by the stage of ZeRO. Pure.

Bytes per parameter are those of Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter
Models", section 3: with bfloat16 parameters 2 + 2 + 12. The last are float32 master weights and two moments. Under
ZeRO DeepSpeed has a master copy of its share also where that is of the model's own type: 4 + 4 + 12 in float32, and
2 + 2 + 6 without float32 master weights.
"""

from __future__ import annotations

from hpcsft.plan import Plan
from hpcsft.records import Record
from hpcsft.spec import ExperimentSpec


class ModelStates(Record):
    """Model states of one rank in the memory of its GPU (or process), in bytes. They are there all the time."""

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


def model_states(spec: ExperimentSpec, world_size: int, num_parameters: int) -> ModelStates:
    """Model states of one rank for `num_parameters` parameters over `world_size` ranks."""
    size = element_bytes(spec)
    per_parameter = optimizer_bytes(spec)
    stage, offload = spec.train.zero_stage, spec.train.offload

    def shard(num_bytes: int, from_stage: int) -> int:
        return -(-num_bytes // world_size) if stage >= from_stage else num_bytes

    parameters = shard(num_parameters * size, 3)
    gradients = shard(num_parameters * size, 2)
    optimizer = shard(num_parameters * per_parameter, 1)
    host = 0
    if offload != "none":  # the optimizer's own gradients are of its type, and a copy of the new weights is staged
        host = optimizer + shard(num_parameters * (master_bytes(spec) + size), 1)
        optimizer = 0
        gradients = 0 if stage >= 2 else gradients  # they leave the GPU bucket by bucket
    if offload == "all":
        host, parameters = host + parameters, 0
    return ModelStates(
        parameters_bytes=parameters,
        gradients_bytes=gradients,
        optimizer_bytes=optimizer,
        host_bytes=host,
        checkpoint_bytes=num_parameters * (size + per_parameter),
    )


def element_bytes(spec: ExperimentSpec) -> int:
    """Bytes of one parameter in forward and backward."""
    return 2 if spec.model.dtype == "bfloat16" else 4


def master_bytes(spec: ExperimentSpec) -> int:
    """Bytes of one parameter as the optimizer sees it."""
    return 4 if spec.train.master_weights else element_bytes(spec)


def optimizer_bytes(spec: ExperimentSpec) -> int:
    """Bytes that the optimizer keeps of one parameter: two moments, and master weights unless it steps the model's."""
    copies = 3 if spec.train.zero_stage or master_bytes(spec) > element_bytes(spec) else 2
    return copies * master_bytes(spec)


def checkpoint_bytes(spec: ExperimentSpec, num_parameters: int | None) -> int | None:
    """Size of one checkpoint of all ranks together; None for a model of unknown size."""
    return model_states(spec, 1, num_parameters).checkpoint_bytes if num_parameters else None


def gpu_hours_limit(plan: Plan) -> float:
    """GPU-hours if every job ran to its time limit."""
    return sum(stage.gpu_hours_limit for stage in plan.stages)
