"""What a preemption and the time limit will do to the stages here, held against the time that a save takes. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hpcsft.plan import Plan, StagePlan
from hpcsft.preflight.finding import Finding
from hpcsft.preflight.nearest import listed
from hpcsft.preflight.resources.access import association_of, qos_name
from hpcsft.preflight.resources.limits import partitions_of
from hpcsft.site.access import closed_because
from hpcsft.site.preemption import Preemption, kill_wait_s, preemption
from hpcsft.site.records import Site

LONG_STAGES = ("train", "generate", "benchmark", "judge", "preprocess")
SPARE_S = 15
"""Besides the save: the step in progress, the agreement of the ranks, the way back into the queue."""


def notice_findings(plan: Plan, site: Site, save_s: float | None, measured: bool) -> list[Finding]:
    """What happens to training, and to the other long stages where a preemption cancels jobs.

    `save_s` is what writing a checkpoint takes, `measured` in an earlier run or else estimated; None: unknown.
    Stages whose partition this cluster does not have are left out.
    """
    return [*_train(plan, site, save_s, measured), *_others(plan, site)]


def _train(plan: Plan, site: Site, save_s: float | None, measured: bool) -> Iterator[Finding]:
    train = plan.stage("train")
    partition = next(iter(partitions_of(train, site)), None)
    if partition is None:
        return
    where, save = "cluster.train.partition", _save(save_s, measured)
    found, wait_s = _of(train, site), kill_wait_s(site)
    told = f"training is told {train.signal_s} s before its time limit, and killed {wait_s} s after it (KillWait)"
    if save_s is not None and save_s > train.signal_s + wait_s:
        message = f"{told}, and {save}: the time limit loses the steps since the last checkpoint"
        yield Finding(level="warning", where="cluster.train.time", message=message, hint="raise cluster.train.time")
    elif found is None:
        message = f"nothing preempts training in partition {partition.name}; {told}, and {save}"
        yield Finding(level="note", where=where, message=message)
    if found:
        yield _preempted(where, found, site, save_s, save)


def _of(stage: StagePlan, site: Site) -> Preemption | None:
    """Of several partitions, that which leaves the least time; None if nothing preempts in any."""
    found = [
        preemption(site, partition, qos_name(stage, association_of(stage, partition, site.accounts)))
        for partition in partitions_of(stage, site)
    ]
    return min(filter(None, found), key=lambda one: one.notice_s, default=None)


def _save(save_s: float | None, measured: bool) -> str:
    if save_s is None:
        return "what a save takes is not known"
    basis = "measured in an earlier run" if measured else "estimated from the size of a checkpoint"
    return f"a save after the step in progress takes about {max(save_s, 1):.0f} s ({basis})"


def _preempted(where: str, found: Preemption, site: Site, save_s: float | None, save: str) -> Finding:
    if found.mode == "SUSPEND":
        message = f"{found.by} suspends a preempted job, which goes on where it was: nothing is lost, it takes longer"
        return Finding(level="note", where=where, message=message)
    what = f"{found.by} preempts with {_notice(found)}, and {save}"
    if save_s is None or save_s + SPARE_S <= found.notice_s:
        saved = "" if save_s is None else ": no step is lost"
        return Finding(level="note", where=where, message=f"{what}{saved}; the job goes back into the queue")
    may = "may lose" if save_s <= found.notice_s else "loses"
    if found.mode == "CANCEL":
        message = f"{what}: a preemption {may} the steps since the last checkpoint, and may end the job for good"
        hint = f"resume.py goes on with such a run; {_saves(save_s)}{_elsewhere(site)}"
    else:
        message = f"{what}: a preemption {may} the steps since the last checkpoint"
        hint = _saves(save_s) + _elsewhere(site)
    return Finding(level="warning", where=where, message=message, hint=hint)


def _notice(found: Preemption) -> str:
    """The time from the first signal to the kill."""
    if not found.grace_s:
        return f"no grace time, {found.kill_wait_s} s between SIGTERM and the kill (KillWait)"
    return f"{found.grace_s} s of grace and {found.kill_wait_s} s more before the kill (KillWait)"


def _saves(save_s: float) -> str:
    """At most a tenth of the time goes into saving."""
    return f"train.checkpoint.every_minutes={max(5, math.ceil(save_s / 6))} bounds what is lost"


def _elsewhere(site: Site) -> str:
    open_here = [p for p in site.partitions if p.state == "UP" and closed_because(site, p) is None]
    safe = [p.name for p in open_here if preemption(site, p) is None]
    return f"; nothing preempts {listed(safe)}" if safe and site.preempt_type != "qos" else ""


def _others(plan: Plan, site: Site) -> Iterator[Finding]:
    """Stages that stop at their next item and keep what is done: only a cancelled job needs a person."""
    stages = [stage for stage in plan.stages if stage.name in LONG_STAGES and stage.name != "train"]
    cancelled: dict[Preemption, list[str]] = {}
    for stage in stages:
        found = _of(stage, site)
        if found and found.mode == "CANCEL":
            cancelled.setdefault(found, []).append(stage.name)
    for found, names in cancelled.items():
        message = (
            f"{found.by} cancels what it preempts, with {_notice(found)}: an item of {listed(names)} that takes "
            "longer ends the job for good, with what was done before it kept"
        )
        where = f"cluster.{names[0]}.partition"
        yield Finding(level="warning", where=where, message=message, hint="resume.py goes on with such a run")
