"""The frame around a job body: status, attempts, progress and the words for what went wrong.

    jobs/STAGE.py RUN_DIR [INDEX]   ->   run_stage("train", body)   ->   body(StageContext)

A body reads everything it needs from the run directory, so the same command works in a Slurm job, under the local
driver and by hand.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from hpcsft.errors import HpcsftError, InputError, StageError
from hpcsft.plan import Plan, StagePlan
from hpcsft.records import Progress, StageStatus, append_jsonl, now, read_json, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec

PROGRESS_INTERVAL_S = 1.0
"""Status files are rewritten at most this often for the sake of progress."""


@dataclass(frozen=True)
class TaskIdentity:
    """Which process of which job this is, told by the environment."""

    job_id: str
    restart: int
    rank: int
    local_rank: int
    world_size: int

    @classmethod
    def from_environment(cls) -> TaskIdentity:
        """Slurm's variables, those of submitit's local executor, or a single process started by hand."""
        env = os.environ
        if env.get("SUBMITIT_EXECUTOR") == "local":
            names = ("SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_LOCALID", "SUBMITIT_LOCAL_NTASKS")
            job_id, restart = env["HPCSFT_JOB_ID"], 0
        elif env.get("SUBMITIT_EXECUTOR") == "slurm":
            names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
            array = env.get("SLURM_ARRAY_JOB_ID")
            job_id = f"{array}_{env['SLURM_ARRAY_TASK_ID']}" if array else env["SLURM_JOB_ID"]
            restart = int(env.get("SLURM_RESTART_COUNT", "0"))
        else:  # by hand, or under torchrun
            names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
            job_id, restart = f"hand-{os.getpid() if 'RANK' not in env else os.getppid()}", 0
        rank, local_rank, world_size = (int(env.get(name, default)) for name, default in zip(names, "001", strict=True))
        return cls(job_id, restart, rank, local_rank, world_size)


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
    _last_progress_s: float = field(default=float("-inf"), repr=False)
    _progress: Progress | None = field(default=None, repr=False)
    _started: str = field(default_factory=now, repr=False)

    def say(self, text: str) -> None:
        """One line in this rank's log, with the time."""
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def progress(self, done: int, total: int, unit: str) -> None:
        """Tell how far this task is. Cheap to call often; only rank 0 writes."""
        self._progress = Progress(done=done, total=total, unit=unit)
        moment = time.monotonic()
        if self.task.rank == 0 and (done >= total or moment - self._last_progress_s >= PROGRESS_INTERVAL_S):
            self._last_progress_s = moment
            if self.task.world_size == 1 or not _failed_already(self, self.last_status()):
                self.write_status("running")

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
        print("\n".join(error.lines()), file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code) from None


def _run_task(context: StageContext, body: Callable[[StageContext], None]) -> None:
    leader = context.task.rank == 0
    if leader:
        earlier = context.last_status()
        if context.task.world_size > 1 and earlier and _failed_already(context, earlier):
            context.attempt = earlier.attempt  # another rank was quicker to fail than this one to start
        else:
            context.attempt = earlier.attempt + 1 if earlier else 1
            context.write_status("running")
        _journal(context, "start")
    try:
        body(context)
    except BaseException as error:
        _record_failure(context, error)
        raise
    if leader:
        context.write_status("done")
        _journal(context, "done")


def _of_this_attempt(context: StageContext, status: StageStatus) -> bool:
    return (status.job_id, status.restart) == (context.task.job_id, context.task.restart)


def _failed_already(context: StageContext, status: StageStatus | None) -> bool:
    """Has a rank of this very attempt written why it failed?"""
    return status is not None and status.state == "failed" and _of_this_attempt(context, status)


def _record_failure(context: StageContext, error: BaseException) -> None:
    """Write what went wrong, unless another rank of this attempt was first: the first failure is the cause."""
    last = context.last_status()
    if _failed_already(context, last):
        return
    if last:
        context.attempt = last.attempt if _of_this_attempt(context, last) else last.attempt + 1
    if isinstance(error, HpcsftError):
        message, hint = error.message, error.hint
    elif isinstance(error, (KeyboardInterrupt, SystemExit)):
        message, hint = f"stopped from outside ({type(error).__name__})", None
    elif type(error).__name__ == "UncompletedJobError":  # submitit raises it in rank 0 when Slurm gives notice
        message = "stopped by Slurm before its end: the time limit, or a preemption"
        hint = "python launch/resume.py RUN_DIR goes on from the newest checkpoint"
    else:
        last_line = traceback.format_exception_only(error)[-1].strip()
        message, hint = last_line, "the log has the traceback"
    context.write_status("failed", message, hint)
    _journal(context, "failed", message)


def _journal(context: StageContext, event: str, message: str | None = None) -> None:
    row = {
        "time": now(),
        "event": event,
        "stage": context.stage.name,
        "index": context.index,
        "attempt": context.attempt,
        "job_id": context.task.job_id,
        "restart": context.task.restart,
        "world_size": context.task.world_size,
        "host": socket.gethostname(),
    }
    append_jsonl(context.run.attempts, {**row, "message": message} if message else row)


def require(path: os.PathLike[str], produced_by: str) -> None:
    """Raise InputError if `path`, which the stage `produced_by` leaves, is not there."""
    if not os.path.exists(path):
        raise InputError(
            f"{path} is missing", f"run the stage '{produced_by}' first: python jobs/{produced_by}.py RUN_DIR"
        )
