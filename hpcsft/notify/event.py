"""What there is to tell of a run, by its submission and what its tasks said. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from hpcsft.records import StageStatus, Submission
from hpcsft.spec.notify import EventName


class Event(NamedTuple):
    """The end of a run, or its need of a person."""

    state: EventName
    stage: str | None = None
    """Which failed or waits."""
    message: str | None = None
    hint: str | None = None


def event_of(submission: Submission | None, statuses: Sequence[StageStatus], cancelled: bool) -> Event | None:
    """The event that the run is at: the first stage that failed for good, else the first that waits, else its end.

    What tasks said in an earlier submission of their stage counts only where they were done. None while there is
    nothing to tell, and for a cancelled run.
    """
    if submission is None or not submission.jobs or cancelled:
        return None
    jobs = submission.latest()
    for state in ("failed", "waiting"):
        for stage, job in jobs.items():
            said = [status for status in statuses if status.stage == stage and status.state == state]
            for status in sorted(said, key=lambda status: status.index):
                if status.is_of(job) and not status.by_hand:
                    return Event(state, stage, status.message, status.hint)
    done = {(status.stage, status.index) for status in statuses if status.state == "done"}
    whole = all((stage, index) in done for stage, job in jobs.items() for index in range(job.tasks))
    return Event("done") if whole else None


def ended_by_hand(statuses: Sequence[StageStatus]) -> bool:
    """Was the last word that of a stage that a person had started, who then knows?"""
    newest = max(statuses, key=lambda status: status.updated, default=None)
    return newest is not None and newest.by_hand


def last_word_s(statuses: Sequence[StageStatus]) -> float | None:
    """When a task last said something, in seconds since 1970 by its node's clock; None if none has."""
    newest = max((status.updated for status in statuses), default="")
    return datetime.fromisoformat(newest).timestamp() if newest else None
