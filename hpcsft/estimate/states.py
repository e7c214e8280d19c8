"""Model states of one rank: parameters, gradients and optimizer, sharded by the stage of ZeRO. Pure.

Bytes per parameter are those of Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter
Models", section 3: with bfloat16 parameters 2 + 2 + 12. The last are float32 master weights and two moments. Under
ZeRO DeepSpeed has a master copy of its share also where that is of the model's own type: 4 + 4 + 12 in float32, and
2 + 2 + 6 without float32 master weights.

With LoRA (Hu et al. 2021) all of it is there for the adapters alone. The model's own parameters take the bytes of an
element, sharded by ZeRO 3 like all others, and are in no checkpoint.
"""

from __future__ import annotations

from hpcsft.lora import adapter_parameters
from hpcsft.model_shape import ModelShape
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


def trainable_parameters(spec: ExperimentSpec, num_parameters: int, shape: ModelShape | None) -> int:
    """Those that learn: all `num_parameters`, or LoRA's adapters alone. For a model of unknown shape an upper bound."""
    lora = spec.model.lora
    return adapter_parameters(shape, lora) if lora and shape else num_parameters


def all_parameters(spec: ExperimentSpec, num_parameters: int, shape: ModelShape | None) -> int:
    """The model's `num_parameters` and those of LoRA's adapters."""
    lora = spec.model.lora
    return num_parameters + (adapter_parameters(shape, lora) if lora and shape else 0)


def model_states(
    spec: ExperimentSpec, world_size: int, num_parameters: int, shape: ModelShape | None = None
) -> ModelStates:
    """Model states of one rank for a model of `num_parameters` over `world_size` ranks; `shape` matters to LoRA."""
    size = element_bytes(spec)
    learning = trainable_parameters(spec, num_parameters, shape)
    per_parameter = optimizer_bytes(spec)
    stage, offload = spec.train.zero_stage, spec.train.offload

    def shard(num_bytes: int, from_stage: int) -> int:
        return -(-num_bytes // world_size) if stage >= from_stage else num_bytes

    parameters = shard(all_parameters(spec, num_parameters, shape) * size, 3)
    gradients = shard(learning * size, 2)
    optimizer = shard(learning * per_parameter, 1)
    host = 0
    if offload != "none":  # the optimizer's own gradients are of its type, and a copy of the new weights is staged
        host = optimizer + shard(learning * (master_bytes(spec) + size), 1)
        optimizer = 0
        gradients = 0 if stage >= 2 else gradients  # they leave the GPU bucket by bucket
    if offload == "all":
        host, parameters = host + parameters, 0
    return ModelStates(
        parameters_bytes=parameters,
        gradients_bytes=gradients,
        optimizer_bytes=optimizer,
        host_bytes=host,
        checkpoint_bytes=learning * (size + per_parameter),
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


def checkpoint_bytes(spec: ExperimentSpec, num_parameters: int | None, shape: ModelShape | None = None) -> int | None:
    """Size of one checkpoint of all ranks together; None for a model of unknown size."""
    return model_states(spec, 1, num_parameters, shape).checkpoint_bytes if num_parameters else None


def gpu_hours_limit(plan: Plan) -> float:
    """GPU-hours if every job ran to its time limit."""
    return sum(stage.gpu_hours_limit for stage in plan.stages)
