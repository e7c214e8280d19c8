"""What is being submitted is written down first, so that no job is lost and none is started twice.

submission.json holds the intent while sbatch works, and the job carries its mark: in its comment, by which the queue
is searched for it, and in its environment, by which it knows itself that it is meant (`attempt/fence.py`). Whoever
finds an intent that nobody works at any more settles it: a job in the queue is adopted, and what is not there was not
submitted.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

from hpcsft.cluster import local
from hpcsft.cluster.lock import SubmissionLock
from hpcsft.errors import ClusterError, HpcsftError, UnclearError
from hpcsft.records import Intent, Submission, SubmittedStage
from hpcsft.rundir import RunDir
from hpcsft.slurm_client import run_client
from hpcsft.storage import storage_errors

PATIENCE_S = 60.0
"""How long a Slurm that does not answer is asked again."""
SIGHT_S = 10.0
"""A job that Slurm has taken may show up so long after it answers again: what sbatch sent still waits in its line."""
INTERVAL_S = 1.0
ORIGIN = "hpcsft:"
"""What the comment of a job begins with."""


def new_intent(jobs: Sequence[SubmittedStage]) -> Intent:
    """The intent to submit `jobs`, under a new mark."""
    return Intent(mark=secrets.token_hex(4), jobs=list(jobs))


def find_job(run: RunDir, intent: Intent, known: Collection[str]) -> str | None:
    """The job of `intent` in Slurm's queue, ended ones included; None if it is not there.

    A site may replace comments: a job that is none of `known`, of this name and run, is it as well. ClusterError if
    Slurm does not answer.
    """
    [wanted] = intent.jobs
    output = run_client("squeue", "--noheader", "--me", "--states=all", "--format=%F|%j|%Z|%k")
    for line in output.splitlines():
        job_id, name, folder, comment = (*line.strip().split("|", 3), "", "", "")[:4]
        if comment.startswith(ORIGIN):
            if comment.endswith(f":{intent.mark}"):
                return job_id
        elif folder == str(run.code) and name.endswith(f".{wanted.stage}") and job_id not in known:
            return job_id
    return None


def look_for_job(run: RunDir, intent: Intent, known: Collection[str], patience_s: float | None = None) -> str | None:
    """The job of `intent`; None once Slurm has answered for SIGHT_S without showing one. Tells the user why it waits.

    ClusterError if Slurm has not answered for `patience_s` (None: PATIENCE_S).
    """
    patience_s = PATIENCE_S if patience_s is None else patience_s
    began_s, answered_s = time.monotonic(), None
    print(f"looking whether Slurm has taken {intent.jobs[0].stage}; this may take a minute", file=sys.stderr)
    while True:
        try:
            if found := find_job(run, intent, known):
                return found
            answered_s = answered_s or time.monotonic()
        except ClusterError:
            if time.monotonic() - began_s > patience_s:
                raise
        if answered_s and time.monotonic() - answered_s >= SIGHT_S:
            return None
        time.sleep(INTERVAL_S)


def settle(run: RunDir, patience_s: float | None = None) -> Submission | None:
    """What was submitted for `run`, without an intent: its job is adopted if there is one. The lock has to be held.

    UnclearError if nobody could tell; HpcsftError if only another machine can.
    """
    submission = run.read_submission()
    if submission is None or submission.intent is None:
        return submission
    intent, known = submission.intent, {job.job_id for job in submission.jobs}
    if submission.cluster == "local":
        job_id = _driver(run, submission)
    else:
        try:
            job_id = look_for_job(run, intent, known, patience_s)
        except ClusterError as error:
            raise unclear(run, intent, error.message) from None
    adopted = [job.model_copy(update={"job_id": job_id}) for job in intent.jobs] if job_id else []
    settled = submission.model_copy(update={"jobs": [*submission.jobs, *adopted], "intent": None})
    run.write_submission(settled)
    for job in adopted:
        print(f"{job.stage} had been submitted as job {job.job_id}", file=sys.stderr)
    return settled


def settle_run(run: RunDir, patience_s: float | None = None) -> None:
    """Settle what an interrupted command left of `run`, unless one is at it now. Raises as `settle` does."""
    submission = run.read_submission()
    if submission and submission.intent:
        with storage_errors(f"the submission of {run.path} cannot be settled"), SubmissionLock(run):
            settle(run, patience_s)


def settle_if_possible(run: RunDir) -> None:
    """The same for who only looks: what stands against it is no error, and nobody waits for a Slurm that is silent.

    Another user's run is left alone.
    """
    with suppress(HpcsftError, OSError, ValueError):
        run.refuse_foreign()
        settle_run(run, patience_s=0.0)


def unclear(run: RunDir, intent: Intent, reason: str) -> UnclearError:
    """Nobody can tell now whether the job of `intent` is in the queue."""
    return UnclearError(
        f"nobody knows whether Slurm has taken {intent.jobs[0].stage}, and it does not answer now: {reason}; "
        f"{run.path} is kept, and so are the jobs that were submitted",
        "when `squeue` answers, the same command finds the job or submits it; "
        f"python launch/cancel.py {run.path} takes all back",
    )


def _driver(run: RunDir, submission: Submission) -> str | None:
    if submission.host != socket.gethostname():
        raise HpcsftError(f"{run.path} was being submitted on {submission.host}", f"go on with it on {submission.host}")
    return local.find_driver(os.fsencode(submission.path or run.path))
