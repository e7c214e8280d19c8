"""Does a partition have the nodes that a stage asks for: enough, with CPUs, memory, GPUs and features? Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from hpcsft.plan import StagePlan
from hpcsft.preflight.fields import field_of
from hpcsft.preflight.finding import Finding
from hpcsft.preflight.nearest import instead, listed
from hpcsft.preflight.resources.access import is_open
from hpcsft.preflight.resources.features import features_of, satisfies
from hpcsft.site.records import NodeKind, Partition, Site
from hpcsft.spec import ExperimentSpec


class Need(NamedTuple):
    """One thing that every node of a job must have."""

    field: str
    """Of the spec."""
    asked: str
    """In words: 8 GPUs."""
    met_by: Callable[[NodeKind], bool]
    most: str
    """What the best node of the partition has, in words."""


def needs_of(stage: StagePlan, partition: Partition) -> list[Need]:
    """What each node must have for a stage, in the order in which people look for the mistake."""
    nodes = partition.nodes
    cpus, memory_mb = node_cpus(stage), round(stage.mem_gb * 1024) if stage.mem_gb else 0
    most_cpus = max((_cpus(kind, partition) for kind in nodes), default=0)
    most_mb = max((_memory_mb(kind, partition) for kind in nodes), default=0)
    tasks = f" ({stage.tasks_per_node} tasks x {stage.cpus_per_task or 1})" if stage.tasks_per_node > 1 else ""
    found = []
    if stage.constraint:
        wanted = stage.constraint
        has = sorted({feature for kind in nodes for feature in kind.features})
        words = f"nodes with {listed(has)}" if has else "nodes without any feature"
        found.append(
            Need("constraint", f"the constraint {wanted}", lambda kind: satisfies(kind.features, wanted), words)
        )
    if stage.gpus_per_node:
        most = max((kind.gpus for kind in nodes), default=0)
        words = f"nodes with at most {most} GPUs" if most else "no GPUs"
        met: Callable[[NodeKind], bool] = lambda kind: kind.gpus >= stage.gpus_per_node  # noqa: E731
        found.append(Need("gpus_per_node", f"{stage.gpus_per_node} GPUs", met, words))
    found.append(
        Need(
            "cpus_per_task",
            f"{cpus} CPUs{tasks}",
            lambda kind: _cpus(kind, partition) >= cpus,
            f"nodes with at most {most_cpus} CPUs",
        )
    )
    if memory_mb:
        words = f"nodes with at most {most_mb / 1024:,.1f} GB"
        asked = f"{stage.mem_gb:g} GB"
        found.append(Need("mem_gb", asked, lambda kind: _memory_mb(kind, partition) >= memory_mb, words))
    return found


def node_cpus(stage: StagePlan) -> int:
    """CPUs that a stage takes of each node."""
    return stage.tasks_per_node * (stage.cpus_per_task or 1)


def _cpus(kind: NodeKind, partition: Partition) -> int:
    return min(kind.cpus, partition.max_cpus_per_node or kind.cpus)


def _memory_mb(kind: NodeKind, partition: Partition) -> int:
    return min(kind.memory_mb, partition.max_memory_per_node_mb or kind.memory_mb)


def fitting_nodes(stage: StagePlan, partition: Partition) -> list[NodeKind]:
    """The nodes of a partition that have all that a stage asks of each."""
    needs = needs_of(stage, partition)
    return [kind for kind in partition.nodes if all(need.met_by(kind) for need in needs)]


def has_nodes(stage: StagePlan, partition: Partition) -> bool:
    """Does a partition have enough such nodes, up or not?"""
    return sum(kind.count for kind in fitting_nodes(stage, partition)) >= stage.nodes


def nodes_away(stage: StagePlan, partition: Partition) -> bool:
    """Does a partition have enough such nodes, but too few that can be used now?"""
    return has_nodes(stage, partition) and sum(kind.usable for kind in fitting_nodes(stage, partition)) < stage.nodes


def node_findings(spec: ExperimentSpec, stage: StagePlan, partition: Partition, site: Site) -> list[Finding]:
    """Too few nodes with what the stage asks of each; or enough, of which too few are up."""
    if not partition.nodes:  # nobody told
        return []
    needs = needs_of(stage, partition)
    fitting = fitting_nodes(stage, partition)
    there, up = sum(kind.count for kind in fitting), sum(kind.usable for kind in fitting)
    if there < stage.nodes:
        return list(_too_few(spec, stage, partition, site, needs, there))
    if up < stage.nodes:
        which = f"of the {there} such nodes of partition {partition.name}" if there > 1 else "its only such node"
        message = (
            f"{stage.name} needs {stage.nodes} node(s), and {up} {which} can be used now: others are down or drained"
        )
        hint = "the job waits until more come back; `sinfo -R` tells why they are away"
        return [Finding(level="warning", where=field_of(spec, stage.name, "nodes"), message=message, hint=hint)]
    return []


def _too_few(
    spec: ExperimentSpec, stage: StagePlan, partition: Partition, site: Site, needs: list[Need], there: int
) -> Iterator[Finding]:
    """One error for each need that too few nodes meet by itself, or one for all of them together."""
    wanted = f"{stage.nodes} nodes" if stage.nodes > 1 else "one node"
    total = sum(kind.count for kind in partition.nodes)
    if total < stage.nodes:
        where = field_of(spec, stage.name, "nodes")
        larger = [p.name for p in site.partitions if is_open(site, p) and has_nodes(stage, p)]
        hint = f"{where}={total}, or less" + (f"; partitions with enough: {listed(larger)}" if larger else "")
        yield _error(where, f"{wanted} are asked for, and partition {partition.name} has {total}", hint)
        return
    alone = False
    for need in needs:
        meeting = sum(kind.count for kind in partition.nodes if need.met_by(kind))
        if meeting >= stage.nodes:
            continue
        alone = True
        where = field_of(spec, stage.name, need.field)
        has = f"has {need.most}" if not meeting else f"has {meeting} such node(s), and {wanted} are asked for"
        message = f"{need.asked} a node are asked for, and partition {partition.name} {has}"
        if need.field == "constraint":
            message = f"of partition {partition.name} {meeting or 'no'} node(s) meet {need.asked}, and {wanted} must"
        yield _error(where, message, _hint(stage, partition, site, need))
    if alone:
        return
    asked = ", ".join(need.asked for need in needs)
    message = f"{wanted} with {asked}: partition {partition.name} has {there or 'none'} with all of it at once"
    yield _error(f"cluster.{stage.name}", message, f"it has {kinds_text(partition)}")


def _error(where: str, message: str, hint: str) -> Finding:
    """Forcible: nodes may be on their way, and then the job only waits."""
    return Finding(level="error", where=where, message=message, hint=hint, forcible=True)


def _hint(stage: StagePlan, partition: Partition, site: Site, need: Need) -> str:
    if need.field == "constraint":
        there = {feature for kind in partition.nodes for feature in kind.features}
        unknown = [name for name in features_of(stage.constraint or "") or [] if name not in there]
        if unknown:
            known = instead(unknown[0], there) if there else "its nodes have no features at all"
            return f"no node of it has '{unknown[0]}'; {known}"
    others = [p for p in site.partitions if is_open(site, p) and p.name != partition.name]
    enough = [p.name for p in others if has_nodes(stage, p)]
    if enough:
        return f"partitions with such nodes: {listed(enough)}"
    return f"it has {kinds_text(partition)}"


def kinds_text(partition: Partition) -> str:
    """What nodes a partition has, in words: 4 nodes of 64 CPUs, 500 GB, 8 a100."""
    return "; ".join(
        f"{kind.count} node(s) of {kind.cpus} CPUs, {kind.memory_mb / 1024:,.0f} GB"
        + (f", {kind.gpus} {kind.gpu_type or 'GPUs'}" if kind.gpus else "")
        for kind in partition.nodes
    )
