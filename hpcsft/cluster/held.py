"""What is still in somebody else's hands."""

from __future__ import annotations

import contextlib

from hpcsft import slurm_client
from hpcsft.cluster import local
from hpcsft.errors import ClusterError, StageError
from hpcsft.rundir import RunDir


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
            states = [entry.state for entry in slurm_client.query_queue() if entry.job_id == job.job_id and entry.alive]
    if states:
        raise StageError(
            f"{stage} is still in the hands of job {job.job_id} ({states[0]})",
            f"wait for it, or cancel it first: python launch/cancel.py {run.path}",
        )
