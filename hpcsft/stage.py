"""The frame around a job body: status, attempts, progress and the words for what went wrong.

    jobs/STAGE.py RUN_DIR [INDEX]   ->   run_stage("train", body)   ->   body(StageContext)

A body reads everything it needs from the run directory, so the same command works in a Slurm job, under the local
driver and by hand.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from hpcsft.attempt.causes import CAUSES, cause_of
from hpcsft.attempt.fence import Fence
from hpcsft.attempt.identity import TaskIdentity
from hpcsft.attempt.journal import Journal
from hpcsft.attempt.notice import Notice
from hpcsft.attempt.outcome import cause_of_notice, settle_earlier
from hpcsft.errors import Fenced, HpcsftError, InputError, StageError, Stopped
from hpcsft.plan import Plan, StagePlan
from hpcsft.records import Progress, StageStatus, now, read_json, write_json
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
    notice: Notice = field(default_factory=Notice, repr=False)
    _last_progress_s: float = field(default=float("-inf"), repr=False)
    _progress: Progress | None = field(default=None, repr=False)
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
        self._progress = Progress(done=done, total=total, unit=unit)
        moment = time.monotonic()
        if self.task.rank == 0 and (done >= total or moment - self._last_progress_s >= PROGRESS_INTERVAL_S):
            self._last_progress_s = moment
            if self.task.world_size == 1:
                self.fence.check()
            elif self.fence.taken_over() or _ended_already(self, self.last_status()):
                return
            with contextlib.suppress(OSError):
                self.write_status("running")

    def stop_if_asked(self) -> None:
        """Raises Stopped if a signal has asked for it. For stages of one process, between items that are kept."""
        if self.notice.requested:
            done = (
                f" after {self._progress.done} of {self._progress.total} {self._progress.unit}"
                if self._progress
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
            progress=self._progress,
            started=self._started,
            updated=now(),
        )
        write_json(self.run.status_file(self.stage.name, self.index, self.stage.tasks), status)

    def log_file(self, kind: str) -> str | None:
        """This rank's log relative to the run directory; None when run by hand, on a terminal."""
        folder = self.run.log_folder(self.stage.name, self.task.job_id, self.task.restart)
        file = folder / f"{self.task.rank}.{kind}"
        return str(file.relative_to(self.run.path)) if file.exists() else None

    def last_status(self) -> StageStatus | None:
        """What this task said last, in this attempt or an earlier one."""
        return self.run.read_status(self.stage.name, self.index, self.stage.tasks)


def run_stage(name: str, body: Callable[[StageContext], None], argv: list[str] | None = None) -> None:
    """Run a job body for the task that the arguments and the environment name; exits with 1 when it fails.

    Without INDEX a stage of several tasks runs them all, one after the other.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) not in (1, 2) or (len(arguments) == 2 and not arguments[1].isdigit()):
        raise SystemExit(f"usage: python jobs/{name}.py RUN_DIR [INDEX]")
    try:
        run = RunDir.open(arguments[0])
        spec = ExperimentSpec.model_validate(read_json(run.spec))
        plan = Plan.model_validate(read_json(run.plan))
        if name not in plan.stage_names:
            raise StageError(f"this run has no stage '{name}'", f"its stages: {', '.join(plan.stage_names)}")
        stage = plan.stage(name)
        indexes = [int(arguments[1])] if len(arguments) == 2 else range(stage.tasks)
        for index in indexes:
            if index >= stage.tasks:
                raise StageError(f"stage {name} has tasks 0 to {stage.tasks - 1}, there is no {index}")
            _run_task(StageContext(run, spec, plan, stage, index, TaskIdentity.from_environment()), body)
    except HpcsftError as error:
        with contextlib.suppress(OSError):  # a full disk must not change the exit code
            print("\n".join(error.lines()), file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code) from None


def _run_task(context: StageContext, body: Callable[[StageContext], None]) -> None:
    if context.run.cancelled.exists():
        raise Stopped("this run was cancelled", f"python launch/resume.py {context.run.path} goes on")
    if context.task.rank == 0:
        context.notice = Notice(lambda name: context.journal.write("notice", signal=name))
    with context.notice:
        _guarded(context, body)


def _begin(context: StageContext) -> None:
    """Take the task over, look back at how the attempt before ended, and say that this one runs."""
    context.fence.claim()
    earlier = context.last_status()
    context._progress = earlier.progress if earlier else None
    verdict = settle_earlier(context.run, context.stage, context.index, context.task)
    if verdict and not verdict.requeue:
        raise StageError(verdict.message, verdict.hint)
    if context.task.world_size > 1 and _ended_already(context, earlier):
        context.attempt = earlier.attempt  # another rank was quicker to fail than this one to start
    else:
        context.attempt = earlier.attempt + 1 if earlier else 1
        context.write_status("running")
    nodes = os.environ.get("SLURM_JOB_NODELIST") if context.task.token.in_slurm else None
    done = earlier.progress.done if earlier and earlier.progress else 0
    facts = {"attempt": context.attempt, "world_size": context.task.world_size, "nodes": nodes, "done": done}
    context.journal.write("start", **facts)


def _guarded(context: StageContext, body: Callable[[StageContext], None]) -> None:
    """Run the body; however it fails, the run directory says why before the error goes on."""
    leader = context.task.rank == 0
    try:
        if leader:
            _begin(context)
        body(context)
        if leader:
            context.fence.check()
            context.write_status("done")
            context.journal.write("done", attempt=context.attempt)
    except Fenced:
        raise  # nothing may be written any more
    except Stopped as stop:
        if leader:
            _record_stop(context, stop)
        raise
    except BaseException as error:
        _record_failure(context, error)
        raise


def _of_this_attempt(context: StageContext, status: StageStatus) -> bool:
    return (status.job_id, status.restart) == (context.task.job_id, context.task.restart)


def _ended_already(context: StageContext, status: StageStatus | None) -> bool:
    """Has a rank of this very attempt written why it ended?"""
    return status is not None and status.state in ("failed", "stopped") and _of_this_attempt(context, status)


def _record_stop(context: StageContext, stop: Stopped) -> None:
    cause = cause_of_notice(context.task.token, context.notice.requested or "")
    step = context._progress.done if context._progress else 0
    with contextlib.suppress(OSError):  # a full disk must not make a failure of it
        context.journal.write("stopped", cause=cause, step=step, signal=context.notice.requested)
    with contextlib.suppress(OSError):
        context.write_status("stopped", stop.message, stop.hint)


def _record_failure(context: StageContext, error: BaseException) -> None:
    """Write what went wrong, unless another rank of this attempt was first: the first failure is the cause."""
    last = context.last_status()
    if _ended_already(context, last) or context.fence.lost(begun=bool(context.journal.of_attempt())):
        return
    cause = cause_of(error)
    if last:
        context.attempt = last.attempt if _of_this_attempt(context, last) else last.attempt + 1
    if isinstance(error, HpcsftError):
        message, hint = error.message, error.hint
    elif isinstance(error, (KeyboardInterrupt, SystemExit)):
        message, hint = f"stopped from outside ({type(error).__name__})", None
    else:
        message, hint = traceback.format_exception_only(error)[-1].strip(), CAUSES[cause].hint
    # What may be tried again is not failed yet: whoever decides about the next attempt will say so.
    final = CAUSES[cause].budget is None or context.task.by_hand
    context.write_status("failed" if final else "stopped", message, hint)
    facts = {"attempt": context.attempt, "rank": context.task.rank, "cause": cause, "message": message, "hint": hint}
    context.journal.write("failed", **facts)


def require(path: os.PathLike[str], produced_by: str) -> None:
    """Raise InputError if `path`, which the stage `produced_by` leaves, is not there."""
    if not os.path.exists(path):
        raise InputError(
            f"{path} is missing", f"run the stage '{produced_by}' first: python jobs/{produced_by}.py RUN_DIR"
        )
