"""Slurm's own verdict on every stage: `sbatch --test-only`, which submits nothing.

It has gaps, seen with 22.05: it passes a job that its partition's time limit would hold for ever, and refuses one that
would only wait for drained nodes. So what it refuses for want of nodes may be overruled, and `limits` looks besides.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

from hpcsft.cluster.job_environment import job_environment
from hpcsft.cluster.slurm import BROKEN_OFF, NOBODY_ASKED, render_script
from hpcsft.errors import ClusterError
from hpcsft.plan import Plan
from hpcsft.preflight.fields import field_of
from hpcsft.preflight.finding import Finding
from hpcsft.records import Record
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec

AT_ONCE = 4
TIMEOUT_S = 30

PREFIX = re.compile(r"^(?:(?:sbatch|error|fatal|allocation failure):\s*)+")
"""What sbatch puts in front of a reason."""

POLICY = "accounting/qos policy"
"""In a refusal: a limit on jobs, nodes or time of a QOS or an association."""

FIELDS = {
    POLICY: "qos",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "feature": "constraint",
    "memory": "mem_gb",
    "cpu count": "cpus_per_task",
    "time limit": "time",
    "group": "partition",
    "node name": "sbatch",
    "license": "sbatch",
    "reservation": "sbatch",
}
"""What in Slurm's words, in lower case, tells the field that it is about."""

ONLY_WAITS = (
    "nodes are busy",
    "node not available",
    "partition configuration not available now",
    "job is currently held",
    "licenses job requested are not available at this time",
    "reservation not usable",
    "reservation is in use",
)
"""Those, in lower case, of which it surely takes the job: the states that job_allocate of slurmctld lets wait."""

MAY_ONLY_WAIT = (
    "node configuration is not available",
    POLICY,
    *ONLY_WAITS,
)
"""Refusals, in lower case, of jobs that sbatch itself may take, and that then wait."""


class Verdict(Record):
    """What Slurm says of one stage."""

    stage: str
    refused: str | None = None
    """Why, in Slurm's words."""
    starts: str | None = None
    """When it would start if it were ready now, as Slurm writes it: 2026-01-31T12:00:00."""
    nodes: str | None = None
    partition: str | None = None
    """Where it would start: a plugin of the site may choose it."""

    @property
    def accepted(self) -> bool:
        """Has Slurm found nodes for it, now or later?"""
        return self.starts is not None

    @property
    def too_many(self) -> bool:
        """Is it refused because of the number of jobs in the queue?"""
        return "submit" in (self.refused or "").lower() and POLICY in (self.refused or "").lower()

    @property
    def may_only_wait(self) -> bool:
        """Is it refused for a reason for which sbatch itself may take the job, and let it wait?"""
        return any(sign in (self.refused or "").lower() for sign in MAY_ONLY_WAIT)

    @property
    def only_waits(self) -> bool:
        """Does sbatch take such a job, which waits for what is busy or away now?"""
        return any(sign in (self.refused or "").lower() for sign in ONLY_WAITS)


def try_stages(spec: ExperimentSpec, plan: Plan, stages: Collection[str]) -> list[Verdict]:
    """Ask Slurm about each stage, several at once. ClusterError if it does not answer.

    Dependencies are left out: there are no jobs yet to depend on.
    """
    run = RunDir(spec.run_path)
    scripts = {name: render_script(spec, run, plan.stage(name), after=[]) for name in stages}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda name: _try(spec, name, scripts[name]), scripts))


def _try(spec: ExperimentSpec, stage: str, script: str) -> Verdict:
    try:
        done = subprocess.run(
            ["sbatch", "--test-only"],
            input=script,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=job_environment(spec, stage, os.environ),
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"sbatch does not answer within {TIMEOUT_S} s", "try again when Slurm answers") from None
    return read_verdict(stage, done.returncode, done.stderr + done.stdout)


def read_verdict(stage: str, code: int, output: str) -> Verdict:
    """What `sbatch --test-only` has said. ClusterError if there was nobody to say anything."""
    accepted = re.search(r"to start at (\S+).*? on nodes (\S+)(?: in partition (\S+))?", output)
    if code == 0 or (accepted and "failure" not in output):
        starts, nodes, partition = accepted.groups() if accepted else (None, None, None)
        return Verdict(stage=stage, starts=starts, nodes=nodes, partition=partition)
    words = [PREFIX.sub("", line.strip()).rstrip(".") for line in output.splitlines()]
    reasons = list(dict.fromkeys(filter(None, words)))
    refused = "; ".join(reasons) or f"exit status {code}"
    if any(sign in output for sign in (*NOBODY_ASKED, *BROKEN_OFF)):
        raise ClusterError(f"Slurm does not answer: {refused}", "try again when `squeue` answers")
    return Verdict(stage=stage, refused=refused)


def refusals(spec: ExperimentSpec, verdicts: Collection[Verdict]) -> Iterator[Finding]:
    """Refusals that no other check has explained, one finding for each reason."""
    reasons: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.refused:
            reasons.setdefault(verdict.refused, []).append(verdict)
    for reason, refused in reasons.items():
        field = next((field for sign, field in FIELDS.items() if sign in reason.lower()), None)
        stages = ", ".join(verdict.stage for verdict in refused)
        places = [field_of(spec, v.stage, field) if field else f"cluster.{v.stage}" for v in refused]
        where = ", ".join(dict.fromkeys(places)) if field or len(refused) == 1 else "cluster"
        may_only_wait = refused[0].may_only_wait
        if POLICY in reason.lower():
            hint = "`sacctmgr show qos` and `sacctmgr show assoc user=$USER` tell the limits"
        elif may_only_wait:
            hint = (
                "no node can take it as it is now: lower what it asks for, or look in `sinfo` for nodes that are away"
            )
        else:
            hint = "`sinfo` shows what this cluster has, `hpcsft submit SPEC.json --dry-run` all that is asked of it"
        if refused[0].only_waits:
            message, hint = f"Slurm cannot say when {stages} would start: {reason}", "the job waits until that changes"
            yield Finding(level="warning", where=where, message=message, hint=hint)
            continue
        message = f"Slurm refuses {stages}: {reason}"
        yield Finding(level="error", where=where, message=message, hint=hint, forcible=may_only_wait)


def estimates(verdicts: Collection[Verdict], plan: Plan) -> list[Finding]:
    """When the accepted stages would start. For those that wait for others, too, it counts from now."""
    starts = {v.stage: f"{_day_and_time(v.starts)} on {v.nodes}" for v in verdicts if v.starts}
    first = {stage: start for stage, start in starts.items() if not plan.stage(stage).depends_on}
    later = {stage: start for stage, start in starts.items() if stage not in first}
    found = [
        Finding(level="note", where=f"cluster.{stage}", message=f"Slurm would start {stage} at {start}")
        for stage, start in first.items()
    ]
    if later:
        each = "; ".join(f"{stage} at {start}" for stage, start in later.items())
        message = f"each waits for the stage before it; were they ready now, Slurm would start {each}"
        found.append(Finding(level="note", where="cluster", message=message))
    return found


def _day_and_time(start: str) -> str:
    """Without seconds: it is an estimate."""
    return start.replace("T", " ")[:16]
