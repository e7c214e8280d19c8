"""How much there is to compute: tokens -> optimizer steps -> operations -> GPU-hours. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hpcsft.flops import forward_flops, train_flops
from hpcsft.gpus import Gpu
from hpcsft.lora import adapter_parameters
from hpcsft.model_shape import ModelShape
from hpcsft.plan import Plan
from hpcsft.records import Record
from hpcsft.spec import ExperimentSpec


class Amount(Record):
    """How much there is of a split, in one pass over it."""

    rows: int
    tokens: int
    supervised_tokens: int
    sum_squared_lengths: int


class Workload(Record):
    """What training goes through."""

    basis: str
    """Where the figures come from, in words."""
    exact: bool
    """Are they those of data that is there, or an estimate from its first rows?"""
    train: Amount
    validation: Amount
    micro_batches: int
    """Of one epoch, over all ranks."""
    steps_per_epoch: int


def exact_workload(audit: Mapping[str, Any], spec: ExperimentSpec) -> Workload:
    """From data/audit.json, which preprocessing left; squared lengths to the width of a bar of its histogram."""
    figures, held_out = audit["train"], audit["splits"].get("validation", {})
    lengths = figures["lengths"]
    width = lengths["width"]
    middle = [(place + 0.5) * width for place in range(len(lengths["bars"]))]
    squares = sum(count * length**2 for count, length in zip(lengths["bars"], middle, strict=True))
    tokens = figures["tokens"]
    held_out_tokens = held_out.get("tokens", 0)
    return Workload(
        basis="the run's own data",
        exact=True,
        train=Amount(
            rows=figures["rows"],
            tokens=tokens,
            supervised_tokens=figures["supervised_tokens"],
            sum_squared_lengths=round(squares),
        ),
        validation=Amount(
            rows=held_out.get("rows", 0),
            tokens=held_out_tokens,
            supervised_tokens=held_out.get("supervised_tokens", 0),
            sum_squared_lengths=round(squares * held_out_tokens / tokens),
        ),
        micro_batches=figures["packing"]["micro_batches"],
        steps_per_epoch=steps_per_epoch(figures["packing"]["micro_batches"], spec),
    )


def steps_per_epoch(micro_batches: int, spec: ExperimentSpec) -> int:
    """Optimizer steps of one epoch."""
    return -(-micro_batches // (spec.train.global_batch_size // spec.train.micro_batch_size))


def total_flops(
    workload: Workload, shape: ModelShape, epochs: int, adapters: int | None = None, share: float = 1.0
) -> float:
    """Operations of training, and of a validation before it and after each epoch, which is forward only.

    `adapters` is the number of LoRA's parameters if these alone learn, `share` the part of all steps that is made.
    """
    train, held_out = (
        (shape, part.tokens, part.supervised_tokens, part.sum_squared_lengths)
        for part in (workload.train, workload.validation)
    )
    return share * epochs * train_flops(*train, adapters) + (epochs + 1) * forward_flops(*held_out, adapters or 0)


def work_document(
    spec: ExperimentSpec, plan: Plan, workload: Workload, shape: ModelShape | None, gpu: Gpu | None, mfu: float
) -> dict[str, Any]:
    """Steps, tokens and, where shape and peak are known, hours at a utilisation of `mfu` (0 to 1)."""
    epochs, stage, lora = spec.train.epochs, plan.stage("train"), spec.model.lora
    adapters = adapter_parameters(shape, lora) if shape and lora else None
    steps = epochs * spec.train.epoch_steps(workload.steps_per_epoch)
    share = steps / max(1, epochs * workload.steps_per_epoch)
    flops = total_flops(workload, shape, epochs, adapters, share) if shape else None
    peak = gpu.peak_tflops if gpu and stage.gpus_per_node and spec.model.dtype == "bfloat16" else None
    gpu_hours = flops / (peak * 1e12 * mfu) / 3600 if flops and peak else None
    hours = gpu_hours / stage.world_size if gpu_hours else None
    return {
        **workload.model_dump(),
        "epochs": epochs,
        "steps": steps,
        "tokens": round(share * epochs * workload.train.tokens),
        "supervised_tokens": round(share * epochs * workload.train.supervised_tokens),
        "filled_share": _filled(workload, spec),
        "flops": flops,
        "gpu": gpu.name if gpu else None,
        "mfu": mfu,
        "peak_tflops": peak,
        "gpu_hours": gpu_hours,
        "hours": hours,
        "jobs": math.ceil(hours * 60 / stage.time_min) if hours else None,
    }


def _filled(workload: Workload, spec: ExperimentSpec) -> float | None:
    positions = workload.micro_batches * spec.train.micro_batch_size * spec.data.max_length
    return round(workload.train.tokens / positions, 4) if positions else None


def work_warnings(spec: ExperimentSpec, plan: Plan, work: Mapping[str, Any]) -> Sequence[str]:
    """What of it the time limit or the retries of the spec do not allow."""
    limit, jobs = spec.cluster.retries.timeout, work["jobs"]
    if jobs and jobs - 1 > limit:
        return [
            f"training takes about {work['hours']:,.0f} h, {jobs} jobs of cluster.train.time "
            f"{plan.stage('train').time}, and cluster.retries.timeout allows {limit} ends of the time limit"
        ]
    return []
