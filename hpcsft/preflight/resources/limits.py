"""Each stage's resources against the limits of its partition, QOS and association. Pure.

sbatch takes many a job that breaks such a limit, and it then waits for ever: that is why these are errors. Those can be
overruled, for a limit may be about to change, or not hold for this user.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from hpcsft.plan import Plan, StagePlan
from hpcsft.preflight.fields import field_of
from hpcsft.preflight.finding import Finding
from hpcsft.preflight.nearest import instead, listed
from hpcsft.preflight.resources.access import access_findings, association_of, enforces, is_open, qos_name, qos_named
from hpcsft.preflight.resources.nodes import has_nodes, node_findings
from hpcsft.site.records import Association, Partition, Qos, Site
from hpcsft.slurm_client import duration_text
from hpcsft.spec import ExperimentSpec

ARRAY_FIELD = {
    "preprocess": "cluster.preprocess.tasks",
    "generate": "evaluate.shards",
    "benchmark": "benchmark.checkpoints",
}
"""What sets the size of a stage's array."""
OVERRULED_BY = {
    "max_time_min": "partitiontimelimit",
    "max_nodes": "partitionmaxnodes",
    "min_nodes": "partitionminnodes",
}
"""Limit of a partition -> the flag of a QOS whose jobs may go beyond it."""


def partitions_of(stage: StagePlan, site: Site) -> list[Partition]:
    """The partitions of this cluster that a stage may run in; several where the spec names several."""
    names = stage.partition.split(",") if stage.partition else [None]
    return [found for name in names if (found := site.partition(name))]


def limit_findings(spec: ExperimentSpec, stage: StagePlan, site: Site, accepted: bool = False) -> list[Finding]:
    """What this cluster has against a stage. Of several partitions one that fits is enough.

    `accepted`: Slurm's own trial has found nodes for it, and what it looks at is no error, whatever we read: a plugin
    of the site may have changed what was asked for. It looks at limits of time, nodes, accounts and QOS of a partition
    only where the site enforces them at once (EnforcePartLimits); else such a job is taken, and waits for ever.
    """
    unknown = [] if accepted else list(_unknown_partitions(spec, stage, site))
    limits_known = accepted and site.enforces_limits_at_once
    each = [
        [
            *access_findings(spec, stage, partition, site, accepted),
            *([] if limits_known else _time(spec, stage, partition, site)),
            *([] if limits_known else _node_counts(spec, stage, partition, site)),
            *(f for f in node_findings(spec, stage, partition, site) if not (accepted and f.level == "error")),
        ]
        for partition in partitions_of(stage, site)
    ]
    fitting = [found for found in each if not any(finding.level == "error" for finding in found)]
    of_partitions = fitting[0] if fitting else [finding for found in each for finding in found]
    return [*unknown, *of_partitions, *_array(stage, site)]


def _unknown_partitions(spec: ExperimentSpec, stage: StagePlan, site: Site) -> Iterator[Finding]:
    where = field_of(spec, stage.name, "partition")
    names = [partition.name for partition in site.partitions]
    if not names:  # nobody told
        return
    if not stage.partition:
        if site.partition(None) is None:
            hint = f"name one: {where}={names[0]}; there are {listed(names)}"
            message = "no partition is given, and this cluster has no default one"
            yield Finding(level="error", where=where, message=message, hint=hint, forcible=True)
        return
    for name in stage.partition.split(","):
        if site.partition(name) is None:
            message, hint = f"this cluster has no partition '{name}'", instead(name, names)
            yield Finding(level="error", where=where, message=message, hint=hint, forcible=True)


class Limit(NamedTuple):
    """A limit that holds for a job."""

    value: float
    of: str
    """Whose it is, in words."""


def _owners(stage: StagePlan, partition: Partition, site: Site) -> list[tuple[str, Qos | Association]]:
    """Whose limits hold for a job, and what people call them; of any one limit the first that is set counts."""
    accounts = site.accounts
    if not enforces(accounts, "limits"):
        return []
    own = association_of(stage, partition, accounts)
    qualities = [qos_named(accounts, name) for name in (partition.qos, qos_name(stage, own))]
    if qualities[1] and "overpartqos" in qualities[1].flags:
        qualities.reverse()
    return [
        *((f"QOS {qos.name}", qos) for qos in qualities if qos),
        *([(f"account {own.account}", own)] if own else []),
    ]


def _tightest(field: str, stage: StagePlan, partition: Partition, site: Site) -> Limit | None:
    """The limit on `field` that holds for a job: the first of the owners' or the partition's, whichever is less."""
    owned = [
        Limit(value, of)
        for of, owner in _owners(stage, partition, site)
        if (value := getattr(owner, field, None)) is not None
    ]
    value = None if _overrules(field, stage, partition, site) else getattr(partition, field)
    limits = [*owned[:1], *([Limit(value, f"partition {partition.name}")] if value is not None else [])]
    return min(limits, key=lambda limit: limit.value, default=None)


def _overrules(field: str, stage: StagePlan, partition: Partition, site: Site) -> bool:
    """May a job of this QOS go beyond this limit of its partition?"""
    accounts = site.accounts
    qos = qos_named(accounts, qos_name(stage, association_of(stage, partition, accounts)))
    return qos is not None and OVERRULED_BY[field] in qos.flags


def _own(spec: ExperimentSpec, stage: StagePlan) -> str:
    return "" if spec.cluster.resolved(stage.name)["time"] else " (hpcsft's own, where the spec gives none)"


def _time(spec: ExperimentSpec, stage: StagePlan, partition: Partition, site: Site) -> Iterator[Finding]:
    where = field_of(spec, stage.name, "time")
    limit = _tightest("max_time_min", stage, partition, site)
    if limit and stage.time_min > limit.value:
        most = duration_text(round(60 * limit.value))
        message = (
            f"the time limit {stage.time}{_own(spec, stage)} is above the {most} that {limit.of} allows: "
            "the job would be refused, or wait for ever"
        )
        longer = _longer(stage, partition, site) if limit.of == f"partition {partition.name}" else ""
        hint = f"{where}={most}{_goes_on(stage)}{longer}"
        yield Finding(level="error", where=where, message=message, hint=hint, forcible=True)


def _goes_on(stage: StagePlan) -> str:
    return "; training saves, and goes on in the next job" if stage.name == "train" else ""


def _longer(stage: StagePlan, partition: Partition, site: Site) -> str:
    longer = [
        other.name
        for other in site.partitions
        if other.name != partition.name
        and is_open(site, other)
        and (other.max_time_min is None or other.max_time_min >= stage.time_min)
        and has_nodes(stage, other)
    ]
    return f"; partitions that allow {stage.time}: {listed(longer)}" if longer else ""


def _node_counts(spec: ExperimentSpec, stage: StagePlan, partition: Partition, site: Site) -> Iterator[Finding]:
    where = field_of(spec, stage.name, "nodes")
    limit = _tightest("max_nodes", stage, partition, site)
    if limit and stage.nodes > limit.value:
        message = (
            f"{stage.nodes} nodes are above the {limit.value:g} that {limit.of} allows to a job: "
            "it would be refused, or wait for ever"
        )
        yield Finding(level="error", where=where, message=message, hint=f"{where}={limit.value:g}", forcible=True)
    if stage.nodes < partition.min_nodes and not _overrules("min_nodes", stage, partition, site):
        message = f"partition {partition.name} is for jobs of at least {partition.min_nodes} nodes; given {stage.nodes}"
        hint = "take another partition for this stage"
        yield Finding(
            level="error", where=field_of(spec, stage.name, "partition"), message=message, hint=hint, forcible=True
        )


def _array(stage: StagePlan, site: Site) -> Iterator[Finding]:
    if site.max_array_size is not None and stage.tasks > max(1, site.max_array_size):
        where = ARRAY_FIELD[stage.name]
        most = max(1, site.max_array_size)
        takes = (
            f"is larger than the {most} that this cluster takes"
            if most > 1
            else "is asked for, and this cluster takes none"
        )
        message, hint = f"an array of {stage.tasks} jobs {takes}", f"{where}={most}" + (", or less" if most > 1 else "")
        yield Finding(level="error", where=where, message=message, hint=hint, forcible=True)


def count_findings(plan: Plan, stages: Collection[str], site: Site) -> Iterator[Finding]:
    """The jobs of the whole submission against how many may be in the queue; each task of an array counts as one."""
    chosen = [plan.stage(name) for name in stages]
    most: dict[str, int] = {}
    jobs: dict[str, dict[str, int]] = {}
    for stage in chosen:
        for of, value in _submitted_limits(stage, site):
            most[of] = value
            jobs.setdefault(of, {})[stage.name] = stage.tasks
    for of, value in most.items():
        total = sum(jobs[of].values())
        if total > value:
            counted = " + ".join(f"{number} {name}" for name, number in jobs[of].items())
            message = f"this submits {total} jobs ({counted}), and {of} allows {value} in the queue"
            hint = "lower evaluate.shards and cluster.preprocess.tasks, or submit some stages at a time with --stages"
            yield Finding(level="error", where="cluster", message=message, hint=hint, forcible=True)


def _submitted_limits(stage: StagePlan, site: Site) -> Iterator[tuple[str, int]]:
    if site.max_submitted is not None:
        yield "this cluster (MaxJobCount)", site.max_submitted
    for partition in partitions_of(stage, site)[:1]:
        for of, owner in _owners(stage, partition, site):
            value = owner.max_submitted_per_user if isinstance(owner, Qos) else owner.max_submitted
            if value is not None:
                yield of, value
                return  # the first that is set counts
