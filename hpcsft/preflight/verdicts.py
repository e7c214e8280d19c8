"""What our own look at the limits says of a stage and what Slurm says, put together. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hpcsft.preflight.finding import Finding
from hpcsft.preflight.trial import Verdict


def explained(verdict: Verdict, limits: Sequence[Finding], nodes_away: bool) -> list[Finding] | None:
    """The findings of one stage; None if Slurm refuses it for a reason that the limits do not explain.

    `nodes_away`: there are enough nodes for it, and too few can be used now.

    Where the limits explain what Slurm refuses, theirs is the better sentence, and Slurm's words confirm it: if sbatch
    would not take the job either, nobody can overrule it. Where too few nodes are up and sbatch would let the job
    wait, it is no error.
    """
    errors = [finding for finding in limits if finding.level == "error"]
    meant = [finding for finding in errors if verdict.refused and _is_about(verdict.refused, finding)]
    if verdict.refused is None or (not errors and nodes_away and verdict.may_only_wait):
        return list(limits)
    if not meant:
        return None
    confirmed = {"forcible": verdict.may_only_wait}
    return [
        finding.model_copy(update={"message": f"{finding.message} (Slurm: {verdict.refused})", **confirmed})
        if finding in meant
        else finding
        for finding in limits
    ]


FIELDS = {
    "partition": ("partition",),
    "node count": ("nodes", "partition"),
    "node configuration": ("nodes", "tasks_per_node", "cpus_per_task", "mem_gb", "gpus_per_node", "constraint"),
    "feature": ("constraint",),
    "array": ("tasks", "shards"),
    "account": ("account", "partition"),
    "qos": ("qos", "partition", "account"),
    "memory": ("mem_gb",),
    "cpu": ("cpus_per_task", "tasks_per_node"),
    "time limit": ("time",),
    "gres": ("gpus_per_node",),
    "policy": ("time", "nodes", "tasks", "account", "qos", "partition", "cpus_per_task", "mem_gb", "gpus_per_node"),
}
"""What a reason of Slurm's has in it, in lower case, and the fields that it may be about."""


def _is_about(reason: str, finding: Finding) -> bool:
    fields = {place.strip().rpartition(".")[2] for place in finding.where.split(",")}
    return any(sign in reason.lower() and fields & set(about) for sign, about in FIELDS.items())
