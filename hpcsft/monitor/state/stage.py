"""The state of one stage, put together from those of its tasks. Pure."""

from __future__ import annotations

from collections.abc import Sequence, Set

from hpcsft.monitor.failure.deciding_line import most_telling
from hpcsft.monitor.failure.naming import Failure, name_failure
from hpcsft.monitor.state.facts import Facts, State
from hpcsft.monitor.state.forecast import Forecast, forecast, whole_progress
from hpcsft.monitor.state.history import Attempt, attempts
from hpcsft.monitor.state.task import WAITING, task_state
from hpcsft.plan import StagePlan
from hpcsft.records import Progress, Record, StageStatus, SubmittedStage
from hpcsft.slurm_client import duration_text
from hpcsft.slurm_queue import QueueEntry


class TaskState(Record):
    """One task of a stage."""

    index: int
    state: State
    message: str | None = None
    job_id: str | None = None
    restart: int = 0
    host: str = ""
    progress: Progress | None = None


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
    nodes: str | None = None
    expected_start: str | None = None
    """When Slurm expects to start it: local time, ISO 8601."""
    forecast: Forecast | None = None
    failure: Failure | None = None
    attempts: list[Attempt] = []
    tasks: list[TaskState] = []


def stage_state(facts: Facts, stage: StagePlan, before: Set[State]) -> StageState:
    """The state of `stage`; `before` are the states of the stages before it."""
    statuses = {status.index: status for status in facts.statuses if status.stage == stage.name}
    submitted = facts.submitted.get(stage.name)
    if submitted is None and not statuses:
        return StageState(name=stage.name, state="unsubmitted", job_ids=[], restarts=0)
    entries = _entries(facts, submitted)
    tasks = [
        _task(facts, submitted, index, statuses.get(index), entries.get(index), before) for index in range(stage.tasks)
    ]
    whole = whole_state([task.state for task in tasks])
    telling = _telling(tasks, whole)
    status = statuses.get(telling.index) if telling else None
    shown = _shown_entry(tasks, entries)
    failure = _failure(facts, stage, telling, status, entries) if whole in ("failed", "waiting") and telling else None
    return StageState(
        name=stage.name,
        state=whole,
        job_ids=[submitted.job_id] if submitted else sorted({s.job_id for s in statuses.values()}),
        restarts=max((status.restart for status in statuses.values()), default=0),
        progress=whole_progress(stage, list(statuses.values())),
        message=telling.message if telling else None,
        hint=status.hint if status and whole in ("failed", "waiting") else None,
        log=_log(statuses, status) or (facts.launcher_logs.get(stage.name) if whole == "failed" else None),
        elapsed=_elapsed(facts, shown) if shown else None,
        limit=shown.limit if shown else None,
        nodes=shown.nodes or None if shown else None,
        expected_start=_expected_start(entries) if whole == "pending" else None,
        forecast=forecast(facts, stage, statuses, entries) if whole == "running" else None,
        failure=failure,
        attempts=_attempts(facts, stage),
        tasks=tasks,
    )


def _task(
    facts: Facts,
    submitted: SubmittedStage | None,
    index: int,
    status: StageStatus | None,
    entry: QueueEntry | None,
    before: Set[State],
) -> TaskState:
    state, message = task_state(facts, submitted, status, entry, before)
    if status is None:
        return TaskState(index=index, state=state, message=message)
    return TaskState(
        index=index,
        state=state,
        message=message,
        job_id=status.job_id,
        restart=status.restart,
        host=status.host,
        progress=status.progress,
    )


def _entries(facts: Facts, submitted: SubmittedStage | None) -> dict[int, QueueEntry]:
    if submitted is None:
        return {}
    return {entry.index: entry for entry in facts.queue or [] if entry.job_id == submitted.job_id}


def _shown_entry(tasks: Sequence[TaskState], entries: dict[int, QueueEntry]) -> QueueEntry | None:
    """The queue's line that speaks for the stage: of its first task that runs."""
    return next((entries[task.index] for task in tasks if task.state == "running" and task.index in entries), None)


def _elapsed(facts: Facts, entry: QueueEntry) -> str:
    """How long it has run by now, as Slurm writes it."""
    if entry.elapsed_s is None or facts.as_of is None:
        return entry.elapsed
    return duration_text(entry.elapsed_s + max(0, int(facts.now - facts.as_of)))


def _expected_start(entries: dict[int, QueueEntry]) -> str | None:
    return min((e.start for e in entries.values() if e.start not in ("", "N/A")), default=None)


def whole_state(states: Sequence[State]) -> State:
    """The state of a whole from those of its parts. Cancelled only when nothing of it runs any more."""
    found = set(states)
    for state in ("failed", "running", "waiting", "cancelled"):
        if state in found:
            return state
    if found <= {"done"}:
        return "done"
    return "pending" if found <= {"pending", "unsubmitted"} else "running"


def _telling(tasks: Sequence[TaskState], whole: State) -> TaskState | None:
    """The task that speaks for the stage: the first that failed, or that waits."""
    told = [task for task in tasks if task.message]
    if whole in ("failed", "waiting") and told:
        return next((task for task in told if not task.message.startswith(WAITING)), told[0])
    return told[0] if whole == "pending" and told else None


def _failure(
    facts: Facts, stage: StagePlan, telling: TaskState, status: StageStatus | None, entries: dict[int, QueueEntry]
) -> Failure | None:
    details = facts.details
    if details is None:
        return None
    task = (stage.name, telling.index)
    rows = details.journals.get(task, [])
    attempt = [r for r in rows if status and (r["job_id"], r["restart"]) == (status.job_id, status.restart)]
    entry, logs = entries.get(telling.index), details.logs.get(task, [])
    number = most_telling([log.lines for log in logs])
    log = logs[number or 0] if logs else None
    return name_failure(
        run_dir=facts.run_dir,
        stage=stage.name,
        status=status,
        rows=attempt,
        slurm_state=entry.state if entry and not entry.alive else None,
        message=telling.message,
        log=log.path if log else None,
        lines=log.lines if log else [],
        first_line_number=log.lines_before + 1 if log else 1,
    )


def _attempts(facts: Facts, stage: StagePlan) -> list[Attempt]:
    if facts.details is None:
        return []
    return [a for index in range(stage.tasks) for a in attempts(facts.details.journals.get((stage.name, index), []))]


def _log(statuses: dict[int, StageStatus], telling: StageStatus | None) -> str | None:
    if telling and telling.log:
        return telling.log
    return next((status.log for status in statuses.values() if status.log), None)
