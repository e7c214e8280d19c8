"""What state a run is in: one pure function of what was submitted, what the tasks said and what the queue holds.

The run directory is the truth about what ended; the queue only tells about what has not. A job that Slurm still holds
is never called failed, whatever its last attempt said.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

from hpcsft.errors import EXIT_CANCELLED, EXIT_OK, EXIT_RUN_WAITING, EXIT_STAGE_FAILED, EXIT_UNFINISHED
from hpcsft.monitor.facts import Facts, State
from hpcsft.monitor.task_state import task_state
from hpcsft.plan import StagePlan
from hpcsft.records import Progress, Record, StageStatus, SubmittedStage
from hpcsft.slurm_client import QueueEntry

SCHEMA_VERSION = 1

EXIT_CODE = {
    "done": EXIT_OK,
    "failed": EXIT_STAGE_FAILED,
    "waiting": EXIT_RUN_WAITING,
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
        """Will nothing change any more by itself?"""
        return self.state in ("done", "failed", "waiting", "cancelled")

    @property
    def exit_code(self) -> int:
        """The exit code that tells this state."""
        return EXIT_CODE[self.state]


def run_state(facts: Facts) -> RunState:
    """The state of a run."""
    stages: list[StageState] = []
    hands_on = [s for s in facts.statuses if s.by_hand and s.state == "running" and s.job_id not in facts.hands_off]
    by_hand = {status.stage for status in hands_on}
    for stage in facts.plan.stages:
        before: set[State] = {earlier.state for earlier in stages}
        if any(earlier.name in by_hand for earlier in stages):
            before.add("waiting")  # what follows is in that person's hands as well
        stages.append(_stage_state(facts, stage, before))
    shown = [stage for stage in stages if stage.state != "unsubmitted"]
    return RunState(
        run_dir=facts.run_dir,
        state=_whole([stage.state for stage in shown]) if shown else "unsubmitted",
        stages=stages,
        train=facts.train,
        problem=facts.problem,
    )


def _stage_state(facts: Facts, stage: StagePlan, before: Set[State]) -> StageState:
    statuses = {status.index: status for status in facts.statuses if status.stage == stage.name}
    submitted = facts.submitted.get(stage.name)
    if submitted is None and not statuses:
        return StageState(name=stage.name, state="unsubmitted", job_ids=[], restarts=0)
    entries = _entries(facts, submitted)
    states: list[State] = []
    messages: list[tuple[str, StageStatus | None]] = []
    for index in range(stage.tasks):
        status = statuses.get(index)
        state, message = task_state(facts, submitted, status, entries.get(index), before)
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
        hint=status.hint if status and whole in ("failed", "waiting") else None,
        log=_log(statuses, status) or (facts.launcher_logs.get(stage.name) if whole == "failed" else None),
        elapsed=shown.elapsed if shown else None,
        limit=shown.limit if shown else None,
    )


def _entries(facts: Facts, submitted: SubmittedStage | None) -> dict[int, QueueEntry]:
    if submitted is None:
        return {}
    return {entry.index: entry for entry in facts.queue or [] if entry.job_id == submitted.job_id}


def _whole(states: Sequence[State]) -> State:
    """The state of a whole from those of its parts. Cancelled only when nothing of it runs any more."""
    for state in ("failed", "running", "waiting", "cancelled"):
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
    if whole in ("failed", "waiting") and messages:
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
