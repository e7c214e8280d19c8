"""When a stage will be done, and whether that is before its time limit. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from hpcsft.monitor.state.facts import Facts, Task
from hpcsft.plan import StagePlan
from hpcsft.records import Progress, Record, StageStatus
from hpcsft.slurm_queue import QueueEntry

MIN_SHARE = 0.01
"""Of less than this share no pace is taken."""


class Forecast(Record):
    """What comes, if it goes on like this."""

    eta_s: float
    """Seconds of work that are left."""
    left_s: float | None = None
    """Seconds until the time limit ends the job; None if that is not known, or of no account."""
    stops_at: int | None = None
    """How far it will be when the time limit comes first, in the unit of the progress."""
    requeues_left: int | None = None
    """How often it may go on after a time limit."""

    @property
    def in_time(self) -> bool | None:
        """Will it be done before the time limit?"""
        return None if self.left_s is None else self.eta_s < self.left_s


def forecast(
    facts: Facts, stage: StagePlan, statuses: Mapping[int, StageStatus], entries: Mapping[int, QueueEntry]
) -> Forecast | None:
    """The forecast of a stage that runs; None as long as there is no pace."""
    running = [status for status in statuses.values() if status.state == "running" and status.progress]
    work = whole_progress(stage, list(statuses.values()))
    if work is None or not running:
        return None
    pace_s = facts.train.get("pace_s") if stage.name == "train" else _pace_s(facts, running)
    if not pace_s:
        return None
    eta_s = max(0.0, (work.total - work.done) * pace_s - _silence_s(facts, running))
    lefts = [left for status in running if (left := _left_s(facts, entries.get(status.index))) is not None]
    if stage.tasks > 1 or not lefts:  # tasks of an array have limits of their own
        return Forecast(eta_s=eta_s)
    left_s = min(lefts)
    if eta_s < left_s:
        return Forecast(eta_s=eta_s, left_s=left_s)
    job_id = running[0].job_id
    return Forecast(
        eta_s=eta_s,
        left_s=left_s,
        stops_at=min(work.total, work.done + int(left_s / pace_s)),
        requeues_left=requeues_left(facts, (stage.name, running[0].index), job_id),
    )


def whole_progress(stage: StagePlan, statuses: Sequence[StageStatus]) -> Progress | None:
    """Progress of all tasks; those that have not started count as the average of the others."""
    known = [status.progress for status in statuses if status.progress]
    if not known:
        return None
    done, total = sum(p.done for p in known), sum(p.total for p in known)
    return Progress(done=done, total=round(total * stage.tasks / len(known)), unit=known[0].unit)


def requeues_left(facts: Facts, task: Task, job_id: str) -> int | None:
    """How often a task may still go on after a time limit: cluster.retries.timeout less what is used up."""
    details = facts.details
    if details is None or "timeout" not in details.retries:
        return None
    ends = [row for row in details.journals.get(task, []) if row["event"] == "end" and row["job_id"] == job_id]
    return max(0, details.retries["timeout"] - sum(row["cause"] == "timeout" for row in ends))


def _pace_s(facts: Facts, running: Sequence[StageStatus]) -> float | None:
    """Seconds for one item, by all tasks that run together."""
    rate = 0.0
    for status in running:
        assert status.progress is not None
        done = status.progress.done - _done_before(facts, status)
        took_s = _moment(status.updated) - _moment(status.started)
        if done > 0 and took_s > 0 and status.progress.done >= MIN_SHARE * status.progress.total:
            rate += done / took_s
    return 1 / rate if rate else None


def _done_before(facts: Facts, status: StageStatus) -> int:
    """What earlier attempts had done when this one began."""
    rows = facts.details.journals.get((status.stage, status.index), []) if facts.details else []
    starts = [row for row in rows if row["event"] == "start" and row["restart"] == status.restart]
    return int(starts[-1].get("done", 0)) if starts else 0


def _silence_s(facts: Facts, running: Sequence[StageStatus]) -> float:
    """Seconds since the last word about progress, on average over the tasks."""
    return sum(max(0.0, facts.now - _moment(status.updated)) for status in running) / len(running)


def _left_s(facts: Facts, entry: QueueEntry | None) -> float | None:
    if entry is None or entry.limit_s is None or entry.elapsed_s is None:
        return None
    since_s = facts.now - facts.as_of if facts.as_of else 0.0
    return entry.limit_s - entry.elapsed_s - since_s


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
