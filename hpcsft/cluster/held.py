"""What is done, and what is still in somebody else's hands."""

from __future__ import annotations

import contextlib
from collections import Counter

from hpcsft.cluster import local
from hpcsft.errors import ClusterError, StageError
from hpcsft.owner import Owner, this_cluster, why_unseen
from hpcsft.plan import Plan
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
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
