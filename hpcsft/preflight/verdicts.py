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
    if verdict.refused is None or (not errors and nodes_away and verdict.may_only_wait):
        return list(limits)
    if not errors:
        return None
    confirmed = {"forcible": verdict.may_only_wait}
    return [
        finding.model_copy(update={"message": f"{finding.message} (Slurm: {verdict.refused})", **confirmed})
        if finding.level == "error"
        else finding
        for finding in limits
    ]
