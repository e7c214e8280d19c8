"""What is done, and what is still in somebody else's hands."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from hpcsft.cluster import local
from hpcsft.errors import ClusterError, StageError
from hpcsft.owner import Owner, this_cluster, why_unseen
from hpcsft.plan import Plan
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from hpcsft.slurm_client import run_client
from hpcsft.slurm_queue import query_queue


def done_stages(plan: Plan, run: RunDir) -> set[str]:
    """Stages whose tasks have all said that they are done: Slurm forgets their jobs after a while."""
    done = Counter(status.stage for status in run.read_statuses() if status.state == "done")
    return {stage.name for stage in plan.stages if done[stage.name] == stage.tasks}


def report_waits_for(run: RunDir) -> list[str]:
    """Stages that have to be done before there can be a report, and are not."""
    plan = Plan.model_validate(read_json(run.plan))
    return [name for name in plan.stage("report").depends_on if name not in done_stages(plan, run)]


def refuse_if_held(run: RunDir, stage: str) -> None:
    """StageError if the queue, or the driver on this machine, will run `stage` or runs it: two would meet.

    Where there is no Slurm that answers, nobody knows, and it is not refused.
    """
    submission = run.read_submission()
    job = submission.latest().get(stage) if submission else None
    if submission is None or job is None:
        return
    status = run.read_status(stage, 0, job.tasks)
    if submission.cluster == "local":
        held = local.driver_alive(run, job.job_id, submission.host) and not (status and status.state == "waiting")
        states = ["driver"] if held else []
    else:
        states = []
        with contextlib.suppress(ClusterError):
            if why_unseen(Owner.of(submission), this_cluster()):
                return
            states = [entry.state for entry in query_queue() if entry.job_id == job.job_id and entry.alive]
    if states:
        raise StageError(
            f"{stage} is still in the hands of job {job.job_id} ({states[0]})",
            f"wait for it, or cancel it first: python launch/cancel.py {run.path}",
        )


def jobs_in_queue(run: RunDir, stages: Collection[str] | None = None) -> list[str]:
    """Ids of the jobs of `stages` (None: all) that Slurm has and that are this run's. ClusterError without an answer.

    A site that starts its Slurm anew gives out ids for a second time: a job of something else is left alone.
    """
    submission = run.read_submission()
    jobs = [job for job in submission.jobs if stages is None or job.stage in stages] if submission else []
    if not submission or submission.cluster != "slurm" or not jobs:
        return []
    ids = ",".join(dict.fromkeys(job.job_id for job in jobs))
    lines = run_client("squeue", "--noheader", "--format=%F|%j|%k", f"--jobs={ids}", ignore=("Invalid job id",))
    runs = {run.path.name, Path(submission.path or run.path).name}
    names = {f"{read_json(run.plan)['name']}.{job.stage}" for job in jobs}
    found = (line.split("|", 2) for line in lines.splitlines())
    return list(dict.fromkeys(job_id for job_id, name, comment in found if _is_of(runs, names, name, comment)))


def in_hands(run: RunDir) -> bool:
    """Has the queue jobs of this run, or does its driver live, as far as that can be seen from here?

    ClusterError if Slurm does not answer.
    """
    submission = run.read_submission()
    if submission is None or submission.cluster == "slurm":
        return bool(jobs_in_queue(run))
    return any(local.driver_alive(run, job.job_id, submission.host) is not False for job in submission.jobs)


def _is_of(runs: Collection[str], names: Collection[str], name: str, comment: str) -> bool:
    """By its comment, or where a site rewrites comments, by its name."""
    if comment.startswith("hpcsft:"):
        return comment.split(":")[1] in runs
    return name in names
