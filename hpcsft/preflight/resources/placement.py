"""What will run, but not where people would want it: CPU work on GPU nodes, GPUs that nobody asked for. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hpcsft.inputs import InputFacts
from hpcsft.plan import Plan, StagePlan
from hpcsft.preflight.fields import field_of
from hpcsft.preflight.finding import Finding
from hpcsft.preflight.nearest import listed
from hpcsft.preflight.resources.access import is_open
from hpcsft.preflight.resources.limits import partitions_of
from hpcsft.preflight.resources.nodes import fitting_nodes, has_nodes
from hpcsft.site.records import Partition, Site
from hpcsft.spec import ExperimentSpec

START_S = 60
"""What a job takes to load Python's packages and to let its ranks meet."""
READ_BYTES_PER_S = 500e6
"""What a node reads of a shared filesystem."""
START_SHARE = 0.25
"""A larger share of its time limit than this a job should not take to start."""


def placement_findings(
    spec: ExperimentSpec, plan: Plan, facts: InputFacts, site: Site, stages: Collection[str]
) -> Iterator[Finding]:
    """Warnings and notes about the places of the stages."""
    chosen = [plan.stage(name) for name in stages]
    yield from _cpus_on_gpu_nodes(chosen, site)
    for stage in chosen:
        if stage.name != "train":
            continue
        yield from _short_limit(spec, stage, facts)
        for partition in partitions_of(stage, site)[:1]:
            yield from _forgotten_gpus(spec, stage, partition)
            yield from _few_cpus(spec, stage, partition)
            yield from _scattered(stage, partition)


def _gpus(partition: Partition) -> int:
    """GPUs that every node of a partition has at least."""
    return min((kind.gpus for kind in partition.nodes), default=0)


def _cpus_on_gpu_nodes(chosen: list[StagePlan], site: Site) -> Iterator[Finding]:
    wasting = []
    names: set[str] = set()
    for stage in chosen:
        partitions = partitions_of(stage, site)
        if stage.gpus_per_node or stage.name == "train" or not partitions or not all(map(_gpus, partitions)):
            continue
        better = [p.name for p in site.partitions if is_open(site, p) and not _gpus(p) and has_nodes(stage, p)]
        if better:
            wasting.append(stage)
            names = set(better) & names if names else set(better)
    if wasting and names:
        where = ", ".join(f"cluster.{stage.name}.partition" for stage in wasting)
        message = "needs no GPU, and would wait for, and run on, nodes that have them"
        hint = f"partitions without GPUs: {listed(sorted(names))}"
        yield Finding(level="note", where=where, message=message, hint=hint)


def _forgotten_gpus(spec: ExperimentSpec, stage: StagePlan, partition: Partition) -> Iterator[Finding]:
    gpus = _gpus(partition)
    if gpus and not stage.gpus_per_node and spec.cluster.train.gpus_per_node is None:
        message = (
            f"no GPUs are asked for, so that training would run on CPUs; nodes of {partition.name} have {gpus} GPUs"
        )
        hint = f"cluster.gpus_per_node={gpus}; or cluster.train.gpus_per_node=0 if CPUs are meant"
        yield Finding(level="warning", where="cluster.gpus_per_node", message=message, hint=hint)


def _few_cpus(spec: ExperimentSpec, stage: StagePlan, partition: Partition) -> Iterator[Finding]:
    kinds = fitting_nodes(stage, partition)
    if not stage.gpus_per_node or stage.cpus_per_task is not None or not kinds:
        return
    share = min(kind.cpus * stage.gpus_per_node // max(kind.gpus, 1) for kind in kinds) // stage.tasks_per_node
    if share > 1:
        message = "is not given, so that each rank gets Slurm's default, on most clusters a single CPU"
        hint = f"its GPU's share of a node of partition {partition.name} would be cluster.train.cpus_per_task={share}"
        yield Finding(level="note", where=field_of(spec, stage.name, "cpus_per_task"), message=message, hint=hint)


def _scattered(stage: StagePlan, partition: Partition) -> Iterator[Finding]:
    gpus = max((kind.gpus for kind in fitting_nodes(stage, partition)), default=0)
    wanted = stage.nodes * stage.gpus_per_node
    if stage.nodes > 1 and 0 < wanted <= gpus:
        message = (
            f"{stage.nodes} nodes x {stage.gpus_per_node} GPUs, and one node of partition {partition.name} has {gpus}: "
            "ranks of one node talk faster to each other"
        )
        hint = f"cluster.train.nodes=1 with cluster.train.gpus_per_node={wanted}"
        yield Finding(level="note", where="cluster.train.nodes", message=message, hint=hint)


def _short_limit(spec: ExperimentSpec, stage: StagePlan, facts: InputFacts) -> Iterator[Finding]:
    start_s = START_S + (facts.model.weights_bytes or 0) / READ_BYTES_PER_S
    if start_s > START_SHARE * 60 * stage.time_min:
        message = (
            f"the time limit {stage.time} is short: a job may take {start_s:.0f} s to start and to read the model, "
            "and does so again after each end of its time limit"
        )
        hint = f"at least {-(-round(start_s / START_SHARE) // 60)} minutes, better some hours"
        yield Finding(level="warning", where=field_of(spec, stage.name, "time"), message=message, hint=hint)
