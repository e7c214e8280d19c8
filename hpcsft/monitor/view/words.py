"""Times, counts and states as people read them. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

from hpcsft.attempt.causes import CAUSES
from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.state.stage import StageState
from hpcsft.records import Progress
from hpcsft.usage.text import duration

STYLE = {
    "done": "green",
    "running": "cyan",
    "pending": "yellow",
    "failed": "bold red",
    "waiting": "bold yellow",
    "cancelled": "magenta",
    "unsubmitted": "dim",
}

SOON_S = 90.0
"""An expected start that is nearer is not worth a word."""


def run_state_text(state: RunState) -> str:
    """The state of a run in words."""
    if state.gone or state.unreadable:
        return "gone" if state.gone else "unreadable"
    waiting = [stage.name for stage in state.stages if stage.state == "waiting"]
    if state.state != "waiting":
        return state.state
    return "waiting for a judge" if waiting == ["judge"] else f"waiting: {', '.join(waiting)}"


def clock(moment: float) -> str:
    """The time of day here, to the second."""
    return time.strftime("%H:%M:%S", time.localtime(moment))


def near_time(moment: float, now: float) -> str:
    """A time as one says it: 16:40, or with its day when that is another. Both in seconds since the epoch."""
    same_day = time.strftime("%Y%m%d", time.localtime(moment)) == time.strftime("%Y%m%d", time.localtime(now))
    return time.strftime("%H:%M" if same_day else "%a %d %b %H:%M", time.localtime(moment))


def answered(state: RunState) -> str:
    """When Slurm said what is shown: the time, or with its day when that is another."""
    assert state.as_of is not None
    today = near_time(state.as_of, state.now) == time.strftime("%H:%M", time.localtime(state.as_of))
    return clock(state.as_of) if today else near_time(state.as_of, state.now)


def local_moment(text: str) -> float | None:
    """Slurm's local time in seconds since the epoch."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def amount(progress: Progress) -> str:
    """1,234/3,000 steps."""
    return f"{progress.done:,}/{progress.total:,} {progress.unit}"


def outlook(stage: StageState, now: float) -> str | None:
    """When it will be done, and whether that is before its time limit."""
    known = stage.forecast
    if known is None:
        return None
    if known.stops_at is None or known.left_s is None:
        end = f"{duration(known.eta_s)} left, done about {near_time(now + known.eta_s, now)}"
        return f"{end}, before its limit" if known.in_time else end
    unit = stage.progress.unit if stage.progress else ""
    limit = f"its limit comes in {duration(known.left_s)}"
    stop = f"{duration(known.eta_s)} left, {limit}: stops near {known.stops_at:,} {unit}"
    if known.requeues_left == 0:
        return f"{stop}, and no requeue is left: raise cluster.retries.timeout"
    left = f" ({known.requeues_left} left)" if known.requeues_left is not None else ""
    return f"{stop}, then is requeued{left}"


def phrases(stage: StageState, now: float) -> list[str]:
    """What there is to say about a stage that has not ended, the most important first."""
    said = []
    if stage.state == "running":
        if stage.elapsed and stage.limit:
            said.append(f"{stage.elapsed} of {stage.limit}")
        if ahead := outlook(stage, now):
            said.append(ahead)
    if stage.restarts and stage.state in ("pending", "running"):
        said.append(f"{stage.restarts} restart{'s' if stage.restarts > 1 else ''}")
    if stage.state == "pending":
        said += _wait(stage, now)
    if stage.state in ("pending", "running") and (counts := task_counts(stage)):
        said.append(counts)
    return said


def _wait(stage: StageState, now: float) -> Iterator[str]:
    """Why it waits, since what, and how long perhaps."""
    if stage.attempts and stage.attempts[-1].cause in CAUSES:
        last = stage.attempts[-1]
        yield last.end_text + (f", step {last.step:,} is kept" if last.step is not None else "")
    if stage.message and not stage.message.endswith("(Dependency)"):
        yield stage.message
    start = local_moment(stage.expected_start) if stage.expected_start else None
    if start and start > now + SOON_S:
        yield f"expected to start at {near_time(start, now)}"


def task_counts(stage: StageState) -> str:
    """How many tasks of an array are in which state; empty if all are in one."""
    states = [task.state for task in stage.tasks]
    counts = [f"{states.count(state)} {state}" for state in STYLE if state in states]
    return ", ".join(counts) if len(counts) > 1 else ""
