"""Whether a task is over: as the run directory says, on this machine the driver, and where neither does Slurm."""

from __future__ import annotations

import time
from datetime import datetime

from hpcsft.cluster import local
from hpcsft.monitor.reading.snapshot import SharedQueue, Snapshot
from hpcsft.owner import Owner, why_unseen
from hpcsft.plan import Plan
from hpcsft.records import StageStatus, Submission, read_json
from hpcsft.rundir import RunDir

SLURM_AFTER_S = 30.0
"""Slurm is looked at when nothing was appended for so long, and no more often."""
ANSWER_MAX_AGE_S = 60.0
"""All monitors on this host share an answer of Slurm that is no older."""
LAST_WORD_S = 60.0
"""What Slurm says counts when it is so much newer than the end of the job, and all that the task has said.

Clocks differ, and a last word may be on its way through the filesystem.
"""


class Ending:
    """Looks again and again whether one task of a stage is over."""

    def __init__(self, run: RunDir, stage: str, index: int):
        self.run, self.stage, self.index = run, stage, index
        self.tasks = Plan.model_validate(read_json(run.plan)).stage(stage).tasks
        self._queue: SharedQueue | None = None
        self._slurm_from_s = float("-inf")

    def look(self, quiet_s: float) -> tuple[str | None, bool]:
        """Its state if it is over (done, failed, waiting, cancelled), and whether it has said so itself.

        `quiet_s`: for how long its logs have not grown.
        """
        snapshot = self._ask(quiet_s)  # this and the driver before the task: what it says last is not overlooked
        submission = self.run.read_submission()
        driver_gone = _driver_gone(self.run, submission)
        status = self.run.read_status(self.stage, self.index, self.tasks)
        if status and status.state in ("done", "failed", "waiting") and not _submitted_since(status, submission):
            return status.state, True
        if self.run.cancelled.exists():
            return "cancelled", False
        if driver_gone:
            return "failed", False
        if snapshot is None or submission is None:
            return None, False
        return state_in_slurm(snapshot, submission, status, self.stage, self.index), False

    def _ask(self, quiet_s: float) -> Snapshot | None:
        """What Slurm says, if it is time to look."""
        now_s = time.monotonic()
        submission = self.run.read_submission() if quiet_s >= SLURM_AFTER_S and now_s >= self._slurm_from_s else None
        if submission is None or submission.cluster != "slurm":
            return None
        owner = Owner.of(submission)
        self._queue = self._queue or SharedQueue([self.run], {owner})
        snapshot = self._queue.look(max_age_s=ANSWER_MAX_AGE_S, open_jobs=set())
        self._slurm_from_s = time.monotonic() + SLURM_AFTER_S
        return None if why_unseen(owner, snapshot.here) else snapshot


def state_in_slurm(
    snapshot: Snapshot, submission: Submission, status: StageStatus | None, stage: str, index: int
) -> str | None:
    """How a task has ended that has not said so, by an answer of Slurm; None if it has not, or that cannot be known.

    A requeue does not end it. What a person has started is no job.
    """
    job = submission.latest().get(stage)
    if job is None or snapshot.problem or (status and status.by_hand and status.is_of(job)):
        return None
    entry = next((entry for entry in snapshot.entries([job.job_id]) if entry.index == index), None)
    if entry and entry.alive:
        return None
    moments = [job.submitted, status.updated if status else "", entry.end if entry else ""]
    if snapshot.time < max(map(_time_s, moments)) + LAST_WORD_S:
        return None
    return "cancelled" if entry and entry.state == "CANCELLED" else "failed"


def _time_s(moment: str) -> float:
    """Seconds since the epoch; 0 if it is not known."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0.0


def _driver_gone(run: RunDir, submission: Submission | None) -> bool:
    if submission is None or submission.cluster != "local" or not submission.jobs:
        return False
    return local.driver_alive(run, submission.jobs[-1].job_id, submission.host) is False


def _submitted_since(status: StageStatus, submission: Submission | None) -> bool:
    """Will another attempt follow that has been submitted, and has not spoken yet?"""
    job = submission.latest().get(status.stage) if submission else None
    return job is not None and not status.is_of(job)
