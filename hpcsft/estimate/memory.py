"""The memory of one rank by part, whether a GPU has it, and which settings need less. Pure.

What DeepSpeed keeps beside model states was read in its source (0.19, runtime/zero) and measured:
tests/benchmarks/train_memory.py. In the step, gradients are flattened and turned into float32 besides those that are
there; activations are gone by then, so only the larger of the two counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpcsft.estimate.activations import Activations, activations
from hpcsft.estimate.states import all_parameters, element_bytes, master_bytes, model_states, trainable_parameters
from hpcsft.model_shape import ModelShape
from hpcsft.records import Record
from hpcsft.spec import ExperimentSpec
from hpcsft.train.deepspeed_config import REDUCE_BUCKET

GB = 10**9

KEPT_FREE = 0.05
"""Share of a GPU's memory for CUDA, NCCL and fragmentation. An "80 GB" GPU has 85 * 10**9 bytes: it is 10% of those."""

LIVE_ELEMENTS = int(1e9)
"""ZeRO 3: stage3_max_live_parameters; sub_group_size is as large."""
MOST_NODES = 64
"""Most nodes that a hint asks for."""

PARTS = {
    "parameters": "parameters",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "loss": "loss",
    "buffers": "DeepSpeed's buffers",
    "step": "more in the optimizer step",
}
"""Fields of RankMemory, without _bytes, that add up -> what people call them."""


class RankMemory(Record):
    """Bytes in the memory of one rank's GPU (or process). The parts add up to `total_bytes`, the most at once."""

    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int | None
    """Those kept for the backward pass, and a layer at work; None for a model of unknown shape."""
    loss_bytes: int | None
    """What the loss needs beyond a layer at work."""
    buffers_bytes: int
    """DeepSpeed's, in the backward pass."""
    step_bytes: int
    """What the optimizer step needs beyond activations, loss and buffers, which are gone by then."""
    host_bytes: int
    """In the memory of the host, for train.offload."""
    checkpoint_bytes: int
    """One checkpoint of all ranks together."""
    logits_bytes: int | None
    """Logits of one chunk and of all positions, which are never there together."""
    full_logits_bytes: int | None

    @property
    def states_bytes(self) -> int:
        """Parameters, gradients and optimizer states."""
        return self.parameters_bytes + self.gradients_bytes + self.optimizer_bytes

    @property
    def total_bytes(self) -> int:
        """The most at once."""
        return sum(getattr(self, f"{part}_bytes") or 0 for part in PARTS)

    def document(self) -> dict[str, Any]:
        """All of it, the sums too."""
        return {**self.model_dump(), "states_bytes": self.states_bytes, "total_bytes": self.total_bytes}


def rank_memory(
    spec: ExperimentSpec, world_size: int, num_parameters: int, shape: ModelShape | None = None
) -> RankMemory:
    """Memory of one rank of `world_size` for a whole micro batch, every position of which carries loss."""
    states = model_states(spec, world_size, num_parameters, shape)
    learning = trainable_parameters(spec, num_parameters, shape)
    positions = spec.train.micro_batch_size * spec.data.max_length
    found = _micro_batch(spec, shape, positions) if shape else None
    buffers = _buffers(spec, world_size, all_parameters(spec, num_parameters, shape), learning)
    beside = (found.peak if found else 0) + buffers
    return RankMemory(
        **states.model_dump(),
        activations_bytes=found.activations if found else None,
        loss_bytes=found.peak - found.activations if found else None,
        buffers_bytes=buffers,
        step_bytes=max(0, _step(spec, world_size, learning) - beside),
        logits_bytes=found.logits if found else None,
        full_logits_bytes=found.full_logits if found else None,
    )


def _micro_batch(spec: ExperimentSpec, shape: ModelShape, positions: int) -> Activations:
    return activations(shape, positions, element_bytes(spec), spec.model.gradient_checkpointing, lora=spec.model.lora)


def _zero(spec: ExperimentSpec, key: str, default: int) -> int:
    """A setting of DeepSpeed's section zero_optimization; what is no number, such as "auto", is the default."""
    value = spec.train.deepspeed.get("zero_optimization", {}).get(key, default)
    return int(value) if isinstance(value, int | float) else default


def _buffers(spec: ExperimentSpec, world_size: int, num_parameters: int, learning: int) -> int:
    """DeepSpeed's in the backward pass, with `learning` of `num_parameters` in its optimizer."""
    size, stage = element_bytes(spec), spec.train.zero_stage
    if stage == 0:
        return 0
    bucket = _zero(spec, "reduce_bucket_size", min(REDUCE_BUCKET, learning))
    copied = min(bucket, learning) if world_size > 1 else 0  # on its way to the other ranks
    buckets = bucket * (2 if stage < 3 and _zero(spec, "overlap_comm", False) else 1) + copied * (stage > 1)
    held = min(num_parameters, _zero(spec, "stage3_max_live_parameters", LIVE_ELEMENTS)) if stage == 3 else 0
    micro_batches = spec.train.global_batch_size // (spec.train.micro_batch_size * world_size)
    accumulated = -(-learning // world_size) if stage == 2 and micro_batches > 1 else 0  # and those being made
    return size * (buckets + held + (accumulated if spec.train.offload == "none" else 0))


def _step(spec: ExperimentSpec, world_size: int, learning: int) -> int:
    """Beside the model states, in the optimizer step or when the gradients are reduced ahead of it."""
    size, master, stage = element_bytes(spec), master_bytes(spec), spec.train.zero_stage
    converted = master if master > size else 0
    if stage == 0:
        return max(learning * converted, min(learning, REDUCE_BUCKET) * size)
    share = -(-learning // world_size)
    bucket = _zero(spec, "reduce_bucket_size", min(REDUCE_BUCKET, learning)) * size
    if stage == 1:
        reduced = share * size + bucket
        flattened = share * (2 * size + converted) - learning * size
        return max(0, reduced if spec.train.offload != "none" else max(reduced, flattened))
    if spec.train.offload != "none":
        return 0
    if stage == 2:
        return share * (size + converted)
    return min(share, _zero(spec, "sub_group_size", LIVE_ELEMENTS)) * (size + converted) + bucket


def usable_bytes(gigabytes: float) -> int:
    """What training may use of a GPU sold with so many GB."""
    return int(gigabytes * GB * (1 - KEPT_FREE))


def hints(
    spec: ExperimentSpec, ranks_per_node: int, nodes: int, num_parameters: int, shape: ModelShape | None, limit: int
) -> list[dict[str, Any]]:
    """Settings with which a rank fits into `limit` bytes: each by itself, or the fewest together; empty if none do.

    Every one is {"set": {field: value}, "total_bytes"}.
    """

    def total(values: dict[str, Any]) -> int:
        others = dict(values)
        world_size = ranks_per_node * others.pop("cluster.train.nodes", nodes)
        return rank_memory(changed(spec, others), world_size, num_parameters, shape).total_bytes

    candidates = list(_candidates(spec, ranks_per_node, nodes))
    fitting = [values for values in candidates if total(values) <= limit]
    if not fitting:
        together: dict[str, Any] = {}
        for values in candidates:
            tried = {**together, **values}
            if total(tried) < total(together):
                together = tried
            if total(together) <= limit:
                fitting = [together]
                break
    found: list[dict[str, Any]] = []
    for values in fitting:
        if not any(values.keys() == other["set"].keys() for other in found):  # the smallest change of each kind
            found.append({"set": values, "total_bytes": total(values)})
    return found


def _candidates(spec: ExperimentSpec, ranks_per_node: int, nodes: int) -> Iterator[dict[str, Any]]:
    """Single changes, each kind from the smallest to the largest, the cheapest kind first."""
    train = spec.train
    if not spec.model.gradient_checkpointing:
        yield {"model.gradient_checkpointing": True}
    for stage in range(train.zero_stage + 1, 4):
        yield {"train.zero_stage": stage}
    size = train.micro_batch_size
    while size % 2 == 0:
        size //= 2
        yield {"train.micro_batch_size": size}
    more = nodes * 2
    local = spec.cluster.kind == "local"
    while (
        not local
        and more <= MOST_NODES
        and train.global_batch_size % (train.micro_batch_size * ranks_per_node * more) == 0
    ):
        yield {"cluster.train.nodes": more}
        more *= 2
    if train.offload == "none" and train.zero_stage and train.master_weights:
        yield {"train.offload": "optimizer"}
    if train.offload != "all" and train.master_weights:
        yield {"train.zero_stage": 3, "train.offload": "all"}


def changed(spec: ExperimentSpec, values: dict[str, Any]) -> ExperimentSpec:
    """The spec with other values of fields, named SECTION.FIELD."""
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        section, field = name.split(".")
        sections.setdefault(section, {})[field] = value
    return spec.model_copy(
        update={section: getattr(spec, section).model_copy(update=fields) for section, fields in sections.items()}
    )
