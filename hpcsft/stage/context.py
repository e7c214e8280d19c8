"""What a job body works with: its run, its part of the work, and the words that it leaves in the run directory."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time
from dataclasses import dataclass, field

from hpcsft.attempt.fence import Fence
from hpcsft.attempt.identity import TaskIdentity
from hpcsft.attempt.journal import Journal
from hpcsft.attempt.notice import Notice
from hpcsft.errors import InputError, Stopped
from hpcsft.plan import Plan, StagePlan
from hpcsft.records import Progress, StageStatus, now, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec

PROGRESS_INTERVAL_S = 1.0
"""Status files are rewritten at most this often for the sake of progress."""


@dataclass
class StageContext:
    """What a body works with."""

    run: RunDir
    spec: ExperimentSpec
    plan: Plan
    stage: StagePlan
    index: int
    task: TaskIdentity
    attempt: int = 1
    options: frozenset[str] = frozenset()
    """What the person who started it has said: --force, ..."""
    notice: Notice = field(default_factory=Notice, repr=False)
    _last_progress_s: float = field(default=float("-inf"), repr=False)
    last_progress: Progress | None = field(default=None, repr=False)
    _started: str = field(default_factory=now, repr=False)

    @property
    def fence(self) -> Fence:
        """Whether this attempt is still the newest."""
        return Fence(self.run, self.stage.name, self.index, self.stage.tasks, self.task.token)

    @property
    def journal(self) -> Journal:
        """Where this task's attempts are told."""
        return Journal(self.run, self.stage.name, self.index, self.stage.tasks, self.task.token)

    def say(self, text: str) -> None:
        """One line in this rank's log, with the time."""
        with contextlib.suppress(OSError):  # a full disk is no reason to end
            print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def progress(self, done: int, total: int, unit: str) -> None:
        """Tell how far this task is. Cheap to call often; only rank 0 writes.

        A stage of one process raises Fenced here if a newer attempt has begun; ranks find out together.
        """
        self.last_progress = Progress(done=done, total=total, unit=unit)
        moment = time.monotonic()
        if self.task.rank == 0 and (done >= total or moment - self._last_progress_s >= PROGRESS_INTERVAL_S):
            self._last_progress_s = moment
            if self.task.world_size == 1:
                self.fence.check()
            elif self.fence.taken_over() or self.ended_already(self.last_status()):
                return
            with contextlib.suppress(OSError):
                self.write_status("running")

    def stop_if_asked(self) -> None:
        """Raises Stopped if a signal has asked for it. For stages of one process, between items that are kept."""
        if self.notice.requested:
            done = (
                f" after {self.last_progress.done} of {self.last_progress.total} {self.last_progress.unit}"
                if self.last_progress
                else ""
            )
            raise Stopped(f"stopped by {self.notice.requested}{done}", "what is made so far is kept")

    def write_status(self, state: str, message: str | None = None, hint: str | None = None) -> None:
        """Replace this task's status file."""
        status = StageStatus(
            stage=self.stage.name,
            index=self.index,
            state=state,
            attempt=self.attempt,
            job_id=self.task.job_id,
            restart=self.task.restart,
            host=socket.gethostname(),
            message=message,
            hint=hint,
            log=self.log_file("err"),
            progress=self.last_progress,
            started=self._started,
            updated=now(),
            after_job=self._job_before if self.task.by_hand else None,
        )
        write_json(self.run.status_file(self.stage.name, self.index, self.stage.tasks), status)

    @functools.cached_property
    def _job_before(self) -> str | None:
        """The job that was submitted for this stage when it began."""
        submission = self.run.read_submission()
        job = submission.latest().get(self.stage.name) if submission else None
        return job.job_id if job else None

    def log_file(self, kind: str) -> str | None:
        """This rank's log relative to the run directory; None when run by hand, on a terminal."""
        folder = self.run.log_folder(self.stage.name, self.task.job_id, self.task.restart)
        file = folder / f"{self.task.rank}.{kind}"
        return str(file.relative_to(self.run.path)) if file.exists() else None

    def said(self, status: StageStatus) -> bool:
        """Is `status` this very attempt's?"""
        return (status.job_id, status.restart) == (self.task.job_id, self.task.restart)

    def ended_already(self, status: StageStatus | None) -> bool:
        """Has a rank of this attempt written why it ended?"""
        return status is not None and status.state in ("failed", "stopped", "waiting") and self.said(status)

    def last_status(self) -> StageStatus | None:
        """What this task said last, in this attempt or an earlier one."""
        return self.run.read_status(self.stage.name, self.index, self.stage.tasks)


def require(path: os.PathLike[str], produced_by: str) -> None:
    """Raise InputError if `path`, which the stage `produced_by` leaves, is not there."""
    if not os.path.exists(path):
        raise InputError(
            f"{path} is missing", f"run the stage '{produced_by}' first: python jobs/{produced_by}.py RUN_DIR"
        )
