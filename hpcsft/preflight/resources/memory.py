"""What a rank of training needs, against the GPUs and the memory of the nodes that it would run on. Pure.

The figures are estimates, so that nearly all of it are warnings.
"""

from __future__ import annotations

from collections.abc import Iterator

from hpcsft.estimate.document import first_node_bytes
from hpcsft.estimate.memory import GB, RankMemory, hints, rank_memory, usable_bytes
from hpcsft.estimate.states import element_bytes
from hpcsft.gpus import Gpu
from hpcsft.inputs import InputFacts
from hpcsft.plan import Plan, StagePlan
from hpcsft.preflight.fields import field_of
from hpcsft.preflight.finding import Finding
from hpcsft.preflight.resources.gpu_types import gpus_of_type
from hpcsft.preflight.resources.limits import partitions_of
from hpcsft.preflight.resources.nodes import fitting_nodes
from hpcsft.site.records import NodeKind, Site
from hpcsft.spec import ExperimentSpec

HOPELESS = 1.5
"""Model states that are so many times the memory of a GPU are no matter of an estimate."""
UNSET_MB = 1
"""RealMemory of a node where slurm.conf gives none."""
LARGE_BYTES = 8 * GB
"""From here on a default of the cluster's memory, or a GPU, may well have too little."""


def memory_findings(
    spec: ExperimentSpec, plan: Plan, facts: InputFacts, site: Site | None, host_gb: float | None = None
) -> Iterator[Finding]:
    """Of the stage train. `host_gb`: the memory of this machine, where the stages run on it."""
    size = facts.model.num_parameters
    if size is None:
        return
    stage = plan.stage("train")
    memory = rank_memory(spec, stage.world_size, size, facts.model.shape)
    partitions = partitions_of(stage, site) if site else []
    kinds = [kind for partition in partitions for kind in fitting_nodes(stage, partition)]
    if stage.gpus_per_node and kinds:
        yield from _gpus(spec, stage, facts, memory, kinds)
    needed = first_node_bytes(spec, plan, memory, size * element_bytes(spec))
    yield from _host(spec, stage, needed, kinds, host_gb)


def _gpus(
    spec: ExperimentSpec, stage: StagePlan, facts: InputFacts, memory: RankMemory, kinds: list[NodeKind]
) -> Iterator[Finding]:
    names = sorted({kind.gpu_type for kind in kinds if kind.gpu_type})
    gpus = sorted({gpu for name in names for gpu in gpus_of_type(name)}, key=lambda gpu: gpu.memory_gb)
    need = f"a rank of training needs about {memory.total_bytes / GB:,.1f} GB"
    where = field_of(spec, "train", "gpus_per_node")
    if memory.activations_bytes is None:
        need += " and activations on top"
    if not gpus and memory.total_bytes < LARGE_BYTES:  # any GPU has that
        return
    if not gpus:
        of = (
            f"{', '.join(names)} is not among those that are known" if names else "the cluster does not tell their type"
        )
        message = f"{need}; how much its GPU has is not known: {of}"
        hint = "compare it yourself: `hpcsft plan SPEC.json --gpu NAME` tells how it fits"
        yield Finding(level="note", where=where, message=message, hint=hint)
        return
    yield from _fit(spec, stage, facts, memory, gpus, need)
    if spec.model.dtype == "bfloat16" and (old := [gpu.name for gpu in gpus if gpu.peak_tflops is None]):
        message = f"{', '.join(old)} does not compute in bfloat16"
        hint = "model.dtype=float32, or other GPUs by cluster.train.partition or constraint"
        yield Finding(level="warning", where="model.dtype", message=message, hint=hint)


def _fit(
    spec: ExperimentSpec, stage: StagePlan, facts: InputFacts, memory: RankMemory, gpus: list[Gpu], need: str
) -> Iterator[Finding]:
    smallest, largest = gpus[0], gpus[-1]
    where = field_of(spec, "train", "gpus_per_node")
    if memory.states_bytes > HOPELESS * largest.memory_gb * GB:
        message = (
            f"parameters, gradients and optimizer take {memory.states_bytes / GB:,.1f} GB of each rank, "
            f"and {largest.name} has {largest.memory_gb} GB"
        )
        yield Finding(
            level="error", where=where, message=message, hint=_smaller(spec, stage, facts, largest), forcible=True
        )
    elif memory.total_bytes > usable_bytes(largest.memory_gb):
        message = f"{need}, and of {largest.name} it may use {usable_bytes(largest.memory_gb) / GB:,.1f} GB"
        yield Finding(level="warning", where=where, message=message, hint=_smaller(spec, stage, facts, largest))
    elif memory.total_bytes > usable_bytes(smallest.memory_gb):
        message = (
            f"{need}: it fits {largest.name}, and not {smallest.name} ({smallest.memory_gb} GB), "
            "which the job may be given as well"
        )
        pin = "cluster.train.constraint asks for the larger ones, if this cluster has a feature that tells them"
        hint = f"{pin}; {_smaller(spec, stage, facts, smallest)}"
        yield Finding(level="warning", where=where, message=message, hint=hint)


def _smaller(spec: ExperimentSpec, stage: StagePlan, facts: InputFacts, gpu: Gpu) -> str:
    """Settings with which it would fit, the first few."""
    assert facts.model.num_parameters
    limit = usable_bytes(gpu.memory_gb)
    found = hints(spec, stage.tasks_per_node, stage.nodes, facts.model.num_parameters, facts.model.shape, limit)
    if not found:
        return "it takes more nodes, or GPUs with more memory"
    ways = [" with ".join(f"{name}={str(value).lower()}" for name, value in hint["set"].items()) for hint in found[:3]]
    return f"it would fit with {', or '.join(ways)}"


def _host(
    spec: ExperimentSpec, stage: StagePlan, needed: int, kinds: list[NodeKind], host_gb: float | None
) -> Iterator[Finding]:
    where = field_of(spec, "train", "mem_gb")
    need = f"the ranks of the first node of training need about {needed / GB:,.1f} GB of its memory"
    node_gb = max((kind.memory_mb for kind in kinds if kind.memory_mb > UNSET_MB), default=0) * 1024**2 / GB or host_gb
    if host_gb is None and stage.mem_gb is not None and needed > stage.mem_gb * 1024**3:
        hint = f"cluster.train.mem_gb={-(-needed // 1024**3)}, or more"
        yield Finding(level="warning", where=where, message=f"{need}, and {stage.mem_gb:g} are asked for", hint=hint)
    elif node_gb and needed > node_gb * GB:
        of = "this machine has" if host_gb is not None else "the nodes have"
        hint = "a larger train.zero_stage, a smaller train.micro_batch_size, no train.offload, or more memory"
        yield Finding(level="warning", where=where, message=f"{need}, and {of} {node_gb:,.1f} GB", hint=hint)
    elif host_gb is None and stage.mem_gb is None and needed > LARGE_BYTES:
        message = f"{need}, and none is asked for: the cluster's default counts, which may be a few GB for each CPU"
        hint = f"cluster.train.mem_gb={-(-needed // 1024**3) + 8}"
        yield Finding(level="note", where=where, message=message, hint=hint)
