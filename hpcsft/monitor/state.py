"""What state a run is in: one pure function of what was submitted, what the tasks said and what the queue holds.

The run directory is the truth about what ended; the queue only tells about what has not. A job that Slurm still holds
is never called failed, whatever its last attempt said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from hpcsft.errors import EXIT_CANCELLED, EXIT_OK, EXIT_STAGE_FAILED, EXIT_UNFINISHED
from hpcsft.plan import Plan, StagePlan
from hpcsft.records import Progress, Record, StageStatus, SubmittedStage
from hpcsft.slurm_client import QueueEntry

SCHEMA_VERSION = 1

State = Literal["pending", "running", "done", "failed", "cancelled", "unsubmitted"]

EXIT_CODE = {
    "done": EXIT_OK,
    "failed": EXIT_STAGE_FAILED,
    "cancelled": EXIT_CANCELLED,
    "pending": EXIT_UNFINISHED,
    "running": EXIT_UNFINISHED,
    "unsubmitted": EXIT_UNFINISHED,
}
"""What `monitor --once` and `submit --watch` return for the state of the run."""


class StageState(Record):
    """One stage as the monitor shows it."""

    name: str
    state: State
    job_ids: list[str]
    restarts: int
    progress: Progress | None = None
    message: str | None = None
    hint: str | None = None
    log: str | None = None
    elapsed: str | None = None
    limit: str | None = None


class Facts(Record):
    """Everything that the state of a run is computed from."""

    run_dir: str
    plan: Plan
    submitted: dict[str, SubmittedStage]
    statuses: list[StageStatus]
    queue: list[QueueEntry] | None
    """None when Slurm was not asked or did not answer."""
    driver_alive: bool | None
    """For the local cluster: does the driver still run? None for Slurm."""
    cancelled: bool
    train: dict[str, Any]
    launcher_logs: dict[str, str] = {}
    """Stage -> what the batch script and submitit printed, for a job that died before it had a log of its own."""
    problem: str | None = None
    """Why the queue is not known, if it should be."""


class RunState(Record):
    """One run as the monitor shows it; its dump is the document of `monitor --once --json`."""

    schema_version: int = SCHEMA_VERSION
    run_dir: str
    state: State
    stages: list[StageState]
    train: dict[str, Any]
    problem: str | None = None

    @property
    def finished(self) -> bool:
        """Will nothing change any more?"""
        return self.state in ("done", "failed", "cancelled")

    @property
    def exit_code(self) -> int:
        """The exit code that tells this state."""
        return EXIT_CODE[self.state]


def run_state(facts: Facts) -> RunState:
    """The state of a run."""
    stages: list[StageState] = []
    for stage in facts.plan.stages:
        stages.append(_stage_state(facts, stage, blocked=any(s.state in ("failed", "cancelled") for s in stages)))
    shown = [stage for stage in stages if stage.state != "unsubmitted"]
    return RunState(
        run_dir=facts.run_dir,
        state=_whole([stage.state for stage in shown]) if shown else "unsubmitted",
        stages=stages,
        train=facts.train,
        problem=facts.problem,
    )


def _stage_state(facts: Facts, stage: StagePlan, blocked: bool) -> StageState:
    statuses = {status.index: status for status in facts.statuses if status.stage == stage.name}
    submitted = facts.submitted.get(stage.name)
    if submitted is None and not statuses:
        return StageState(name=stage.name, state="unsubmitted", job_ids=[], restarts=0)
    entries = _entries(facts, submitted)
    states: list[State] = []
    messages: list[tuple[str, StageStatus | None]] = []
    for index in range(stage.tasks):
        status = statuses.get(index)
        state, message = _task_state(facts, submitted, status, entries.get(index), blocked)
        states.append(state)
        if message:
            messages.append((message, status))
    whole = _whole(states)
    message, status = _telling(messages, states, whole)
    shown = next(
        (entries[index] for index, state in enumerate(states) if state == "running" and index in entries),
        None,
    )
    return StageState(
        name=stage.name,
        state=whole,
        job_ids=[submitted.job_id] if submitted else sorted({s.job_id for s in statuses.values()}),
        restarts=max((status.restart for status in statuses.values()), default=0),
        progress=_progress(list(statuses.values())),
        message=message,
        hint=status.hint if status and whole == "failed" else None,
        log=_log(statuses, status) or (facts.launcher_logs.get(stage.name) if whole == "failed" else None),
        elapsed=shown.elapsed if shown else None,
        limit=shown.limit if shown else None,
    )


def _entries(facts: Facts, submitted: SubmittedStage | None) -> dict[int, QueueEntry]:
    if submitted is None:
        return {}
    return {entry.index: entry for entry in facts.queue or [] if entry.job_id == submitted.job_id}


def _task_state(
    facts: Facts,
    submitted: SubmittedStage | None,
    status: StageStatus | None,
    entry: QueueEntry | None,
    blocked: bool,
) -> tuple[State, str | None]:
    """The state of one task and what there is to say about it."""
    if status and status.state == "done":
        return "done", None
    spoke = status is not None and (submitted is None or _is_of(status, submitted))
    if blocked and not spoke and (entry is None or entry.reason.startswith("Dependency")):
        return "cancelled", None  # neither the driver nor kill-on-invalid-dep will let it start
    held = entry.alive if entry else bool(facts.driver_alive)
    if held:
        waiting = entry is not None and entry.state in (
            "PENDING",
            "REQUEUED",
            "REQUEUE_HOLD",
            "SUSPENDED",
        )
        if entry is None and status and spoke and status.state == "failed":
            return "failed", status.message  # the driver stops right after this
        running = spoke if entry is None else not waiting
        return ("running", None) if running else ("pending", _reason(entry))
    if facts.cancelled:
        return "cancelled", None
    if spoke and status.state == "failed":
        return "failed", status.message
    if entry and entry.state == "CANCELLED":
        return "cancelled", None  # with scancel
    if submitted is None:
        return ("failed", status.message) if status and status.state == "stopped" else ("running", None)  # by hand
    if entry is None and (facts.queue is None and facts.driver_alive is None):
        return ("running" if spoke else "pending"), None  # we cannot know
    if spoke and status.state == "stopped":
        return "failed", f"{status.message}; nothing has queued it again"
    if spoke:
        return "failed", _ended_silently(entry)
    if entry and entry.state not in ("CANCELLED", "COMPLETED"):
        return "failed", f"the job ended as {entry.state} before it could say anything"
    if blocked or entry:
        return "cancelled", None
    return "failed", "the job is gone and never started"


def _is_of(status: StageStatus, submitted: SubmittedStage) -> bool:
    """Is `status` about this submission, and not about one before it?"""
    by_hand = status.job_id.startswith("hand-") and status.started >= submitted.submitted
    return status.job_id.split("_")[0] == submitted.job_id or by_hand


def _ended_silently(entry: QueueEntry | None) -> str:
    how = f"as {entry.state}" if entry and entry.state != "COMPLETED" else "without a word"
    return f"the job ended {how}: killed from outside, out of memory, over its time limit or on a failed node"


def _reason(entry: QueueEntry | None) -> str | None:
    return f"waiting: {entry.reason}" if entry and entry.reason not in ("None", "") else None


def _whole(states: Sequence[State]) -> State:
    """The state of a whole from those of its parts. Cancelled only when nothing of it runs any more."""
    for state in ("failed", "running", "cancelled"):
        if state in states:
            return state
    if all(state == "done" for state in states):
        return "done"
    if all(state in ("pending", "unsubmitted") for state in states):
        return "pending"
    return "running"


def _telling(
    messages: list[tuple[str, StageStatus | None]], states: list[State], whole: State
) -> tuple[str | None, StageStatus | None]:
    """The message that speaks for the stage: of the first task that failed, or of the first that waits."""
    if whole == "failed" and messages:
        failed = [(message, status) for message, status in messages if not message.startswith("waiting: ")]
        return (failed or messages)[0]
    if whole == "pending" and messages:
        return messages[0]
    return None, None


def _progress(statuses: list[StageStatus]) -> Progress | None:
    known = [status.progress for status in statuses if status.progress]
    if not known:
        return None
    done, total = sum(p.done for p in known), sum(p.total for p in known)
    return Progress(done=done, total=total, unit=known[0].unit)


def _log(statuses: dict[int, StageStatus], telling: StageStatus | None) -> str | None:
    if telling and telling.log:
        return telling.log
    return next((status.log for status in statuses.values() if status.log), None)
