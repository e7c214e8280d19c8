"""The state of one task of a stage. Pure."""

from __future__ import annotations

from collections.abc import Set
from datetime import datetime

from hpcsft.monitor.state.facts import Facts, State
from hpcsft.monitor.state.reasons import plain_reason
from hpcsft.records import StageStatus, SubmittedStage
from hpcsft.slurm_queue import QueueEntry

WAITING = "waiting: "
"""What the message of a task that waits for its turn begins with."""

SAME_MOMENT_S = 5.0
"""Clocks of two login nodes may differ by so much."""

LAST_WORD_S = 20.0
"""So long after its end a job may still be about to tell why."""

LAUNCH_FAILED = "JobLaunchFailure"
"""Slurm's word for a node that could not even open the job's output."""


def task_state(
    facts: Facts,
    submitted: SubmittedStage | None,
    status: StageStatus | None,
    entry: QueueEntry | None,
    before: Set[State],
) -> tuple[State, str | None]:
    """The state of one task and what there is to say about it."""
    if status and status.state == "done":
        return "done", None
    spoke = status is not None and (submitted is None or status.is_of(submitted))
    blocked = bool(before & {"failed", "cancelled"})
    alive = entry is not None and entry.alive
    if blocked and not spoke and (entry is None or _depends(entry)):
        return "cancelled", None  # neither the driver nor kill-on-invalid-dep will let it start
    if "waiting" in before and not spoke and not facts.cancelled and (not alive or _depends(entry)):
        return "pending", None  # it comes with what the other waits for
    if spoke and status.by_hand and status.state == "running" and not alive:
        return ("failed", _ended_silently(None)) if status.job_id in facts.hands_off else ("running", None)
    held = entry.alive if entry else bool(facts.driver_alive)
    if held:
        waiting = entry is not None and entry.state in (
            "PENDING",
            "REQUEUED",
            "REQUEUE_HOLD",
            "SUSPENDED",
        )
        if entry is None and status and spoke and status.state in ("failed", "waiting"):
            return status.state, status.message  # the driver stops right after this
        if waiting and spoke and status.state == "running" and _is_after(status.started, facts):
            waiting = False  # it has started since Slurm said so
        running = spoke if entry is None else not waiting
        return ("running", None) if running else ("pending", _reason(entry))
    if facts.cancelled:
        return "cancelled", None
    if spoke and status.state in ("failed", "waiting"):
        return status.state, status.message
    if entry and entry.state == "CANCELLED":
        return "cancelled", None  # with scancel
    if submitted is None:
        return ("failed", status.message) if status and status.state == "stopped" else ("running", None)  # by hand
    unknown = facts.queue is None and facts.driver_alive is None
    if entry is None and (unknown or is_news(facts, submitted)):
        return ("running" if spoke else "pending"), None  # we cannot know
    if spoke and entry and _just_ended(facts, entry):
        return "running", None  # its last word, or the batch script's, may be on its way through the filesystem
    if spoke and status.state == "stopped":
        return "failed", f"{status.message}; nothing has queued it again"
    if spoke:
        return "failed", _ended_silently(entry)
    if entry and entry.state not in ("CANCELLED", "COMPLETED"):
        where = ": is the run directory's filesystem mounted on its node?" if entry.reason == LAUNCH_FAILED else ""
        return "failed", f"the job ended as {entry.state} before it could say anything{where}"
    if blocked or entry:
        return "cancelled", None
    return "failed", "the job is gone and never started"


def is_news(facts: Facts, submitted: SubmittedStage) -> bool:
    """Was the job submitted after Slurm said what it has, or in the same moment?"""
    return _is_after(submitted.submitted, facts)


def _is_after(moment: str, facts: Facts) -> bool:
    if facts.as_of is None or not moment:
        return False
    return datetime.fromisoformat(moment).timestamp() > facts.as_of - SAME_MOMENT_S


def _just_ended(facts: Facts, entry: QueueEntry) -> bool:
    try:
        return facts.now - datetime.fromisoformat(entry.end).timestamp() < LAST_WORD_S
    except ValueError:
        return False


def _depends(entry: QueueEntry) -> bool:
    return entry.reason.startswith("Dependency")


def _ended_silently(entry: QueueEntry | None) -> str:
    how = f"as {entry.state}" if entry and entry.state != "COMPLETED" else "without a word"
    return f"the job ended {how}: killed from outside, out of memory, over its time limit or on a failed node"


def _reason(entry: QueueEntry | None) -> str | None:
    """Why it waits, in words and as Slurm calls it."""
    text = plain_reason(entry.reason) if entry else None
    if text is None or entry is None:
        return None
    return f"{WAITING}{text}" + (f" ({entry.reason})" if text != entry.reason else "")
