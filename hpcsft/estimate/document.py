"""The document of `hpcsft plan --json`: memory, work and disk of one spec, and what of it will not do."""

from __future__ import annotations

from typing import Any

from hpcsft.estimate.disk import disk_document, disk_warnings
from hpcsft.estimate.memory import GB, RankMemory, changed, hints, rank_memory, usable_bytes
from hpcsft.estimate.states import element_bytes, gpu_hours_limit, model_states
from hpcsft.estimate.work import Workload, work_document, work_warnings
from hpcsft.gpus import Gpu
from hpcsft.inputs import ModelFacts
from hpcsft.lora import adapter_parameters
from hpcsft.model_shape import ModelShape
from hpcsft.plan import Plan
from hpcsft.spec import ExperimentSpec

USUAL_GB = (40, 80)
"""GPUs that every memory estimate is compared with."""
USUAL_GPUS = (1, 8, 32)
"""Numbers of GPUs for which model states are shown."""


def plan_document(
    spec: ExperimentSpec,
    plan: Plan,
    model: ModelFacts,
    workload: Workload,
    gpu: Gpu,
    mfu: float,
    quota_gb: float | None = None,
) -> dict[str, Any]:
    """Everything that can be said before anything runs. `mfu` is from 0 to 1, `quota_gb` in 10**9 bytes."""
    stage, size = plan.stage("train"), model.num_parameters
    memory = rank_memory(spec, stage.world_size, size, model.shape) if size else None
    tokens = workload.train.tokens + workload.validation.tokens
    disk = disk_document(spec, size, tokens, quota_gb, model.shape) if size else None
    work = work_document(spec, plan, workload, model.shape, gpu, mfu)
    warnings = [*plan.warnings, *work_warnings(spec, plan, work), *(disk_warnings(disk) if disk else [])]
    if memory:
        warnings += _memory_warnings(spec, plan, memory, gpu, size * element_bytes(spec))
    if spec.model.dtype == "bfloat16" and stage.gpus_per_node and gpu.peak_tflops is None:
        warnings.append(f"{gpu.name} does not compute in bfloat16: set model.dtype to float32, or take another GPU")
    return {
        "name": spec.name,
        "run_dir": spec.run_path,
        "model": model.model_dump(),
        "lora": _lora(spec, model) if spec.model.lora else None,
        "batch": plan.batch.model_dump(),
        "settings": {
            "dtype": spec.model.dtype,
            "gradient_checkpointing": spec.model.gradient_checkpointing,
            "max_length": spec.data.max_length,
            **spec.train.model_dump(include={"zero_stage", "offload", "master_weights"}),
            "nodes": stage.nodes,
            "ranks_per_node": stage.tasks_per_node,
            "on_gpus": stage.gpus_per_node > 0,
        },
        "memory_per_rank": memory.document() if memory else None,
        "copy_on_first_host_bytes": size * element_bytes(spec) if size else None,
        "gpu": gpu._asdict(),
        "fits": _fits(memory, gpu) if memory else [],
        "hints": _hints(spec, plan, model, memory, gpu) if memory else [],
        "model_states": _states(spec, stage.world_size, size, model.shape) if size else [],
        "work": work,
        "gpu_hours_limit": gpu_hours_limit(plan),
        "disk": disk,
        "warnings": warnings,
    }


def _lora(spec: ExperimentSpec, model: ModelFacts) -> dict[str, Any]:
    """The adapters; their number is None for a model of unknown shape, whose parameters are all taken to learn."""
    lora, shape = spec.model.lora, model.shape
    assert lora
    adapters = adapter_parameters(shape, lora) if shape else None
    return {**lora.model_dump(), "trainable_parameters": adapters, "frozen_parameters": model.num_parameters}


def _fits(memory: RankMemory, gpu: Gpu) -> list[dict[str, Any]]:
    sizes = sorted({*USUAL_GB, gpu.memory_gb})
    usable = {size: usable_bytes(size) for size in sizes}
    return [{"gb": gb, "usable_bytes": room, "fits": memory.total_bytes <= room} for gb, room in usable.items()]


def _hints(spec: ExperimentSpec, plan: Plan, model: ModelFacts, memory: RankMemory, gpu: Gpu) -> list[dict[str, Any]]:
    stage, limit = plan.stage("train"), usable_bytes(gpu.memory_gb)
    if not stage.gpus_per_node or memory.total_bytes <= limit or not model.num_parameters:
        return []
    return hints(spec, stage.tasks_per_node, stage.nodes, model.num_parameters, model.shape, limit)


def _states(
    spec: ExperimentSpec, world_size: int, num_parameters: int, shape: ModelShape | None
) -> list[dict[str, Any]]:
    """Of the usual numbers of GPUs and the spec's own, for every stage of ZeRO and without offload."""
    return [
        {
            "gpus": gpus,
            "zero_stage": stage,
            "states_bytes": model_states(
                changed(spec, {"train.zero_stage": stage, "train.offload": "none"}), gpus, num_parameters, shape
            ).states_bytes,
        }
        for gpus in sorted({*USUAL_GPUS, world_size})
        for stage in range(4)
    ]


def first_node_bytes(spec: ExperimentSpec, plan: Plan, memory: RankMemory, model_bytes: int) -> int:
    """What the ranks of the first node need of the memory of its host.

    `model_bytes`: rank 0 has the whole model there when it is loaded, and for each export.
    """
    stage = plan.stage("train")
    each = memory.host_bytes if stage.gpus_per_node else memory.total_bytes + memory.host_bytes
    gathers = stage.gpus_per_node > 0 or spec.train.zero_stage == 3
    return each * stage.tasks_per_node + (model_bytes if gathers else 0)


def _memory_warnings(spec: ExperimentSpec, plan: Plan, memory: RankMemory, gpu: Gpu, model_bytes: int) -> list[str]:
    stage, found = plan.stage("train"), []
    usable = usable_bytes(gpu.memory_gb)
    if stage.gpus_per_node and memory.total_bytes > usable:
        found.append(
            f"a rank needs about {memory.total_bytes / GB:,.1f} GB, and of {gpu.name} it may use {usable / GB:,.1f} GB"
        )
    needed = first_node_bytes(spec, plan, memory, model_bytes)
    if stage.mem_gb is not None and needed > stage.mem_gb * GB:
        found.append(
            f"the ranks of the first node need about {needed / GB:,.1f} GB of its memory, and "
            f"cluster.train.mem_gb is {stage.mem_gb:g}"
        )
    return found
