"""Guards what people plan their day by: when it is done, whether the limit comes first, and what happens then."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from hpcsft.monitor.state.facts import Details
from hpcsft.monitor.state.forecast import Forecast, forecast, whole_progress
from hpcsft.slurm_queue import QueueEntry
from tests.monitor.situations import IDS, PLAN, facts, progress, said

NOW = 1_800_000_000.0


def at(seconds: float) -> str:
    """`seconds` after NOW, as statuses tell it."""
    return datetime.fromtimestamp(NOW + seconds, timezone.utc).isoformat()


def training(done: int, pace_s: float | None, entry: QueueEntry | None, **more: Any) -> Forecast | None:
    status = said("train", "running", progress=progress(done, 1000), updated=at(0), started=at(-100))
    known = facts(status, train={"pace_s": pace_s}, now=NOW, as_of=NOW, **more)
    return forecast(known, PLAN.stage("train"), {0: status}, {0: entry} if entry else {})


def running(elapsed: str, limit: str) -> QueueEntry:
    return QueueEntry(IDS["train"], 0, "RUNNING", "None", elapsed, limit)


def test_it_ends_before_the_limit():
    known = training(400, 2.0, running("10:00", "1:00:00"))
    assert known == Forecast(eta_s=1200.0, left_s=3000.0)
    assert known and known.in_time is True


def test_the_limit_comes_first_and_the_requeues_that_are_left_are_told():
    ends = [{"event": "end", "job_id": "102", "cause": cause} for cause in ("timeout", "preemption", "timeout")]
    earlier = [{"event": "end", "job_id": "99", "cause": "timeout"}]
    details = Details(retries={"timeout": 5}, journals={("train", 0): [*earlier, *ends]})
    known = training(400, 2.0, running("50:00", "1:00:00"), details=details)
    assert known == Forecast(eta_s=1200.0, left_s=600.0, stops_at=700, requeues_left=3)
    assert known.in_time is False


def test_the_time_since_the_last_squeue_counts():
    status = said("train", "running", progress=progress(400, 1000), updated=at(-20), started=at(-100))
    known = facts(status, train={"pace_s": 2.0}, now=NOW, as_of=NOW - 30)
    found = forecast(known, PLAN.stage("train"), {0: status}, {0: running("10:00", "1:00:00")})
    assert found == Forecast(eta_s=1180.0, left_s=2970.0)


def test_no_limit_and_no_queue():
    assert training(400, 2.0, running("10:00", "UNLIMITED")) == Forecast(eta_s=1200.0)
    assert training(400, 2.0, None) == Forecast(eta_s=1200.0)


@pytest.mark.parametrize("pace_s", [None, 0.0])
def test_without_a_pace_there_is_no_forecast(pace_s):
    assert training(400, pace_s, running("10:00", "1:00:00")) is None


def generating(*done: tuple[int, int], details: Details | None = None) -> Forecast | None:
    """Tasks of the array that have done so many of 100 answers in so many seconds."""
    statuses = {
        index: said(
            "generate", "running", index=index, progress=progress(n, 100, "answers"), started=at(-s), updated=at(0)
        )
        for index, (n, s) in enumerate(done)
    }
    known = facts(*statuses.values(), now=NOW, details=details)
    return forecast(known, PLAN.stage("generate"), statuses, {})


def test_tasks_of_an_array_work_together():
    """Two make 50 answers in 100 s each, 1 a second; of 300, with those of the task that waits, 200 are left."""
    assert generating((50, 100), (50, 100)) == Forecast(eta_s=200.0)


def test_what_earlier_attempts_have_made_is_no_pace():
    start = {"event": "start", "restart": 0, "job_id": "103_0", "done": 40}
    details = Details(journals={("generate", 0): [start]})
    assert generating((50, 100), details=details) == Forecast(eta_s=2500.0)


def test_a_pace_is_not_taken_from_the_first_items():
    assert generating((0, 100)) is None
    status = said("generate", "running", progress=progress(1, 1000), started=at(-10), updated=at(0))
    assert forecast(facts(status, now=NOW), PLAN.stage("generate"), {0: status}, {}) is None


def test_what_does_not_run_has_no_forecast():
    status = said("train", "done", progress=progress(5, 5))
    assert forecast(facts(status, train={"pace_s": 1.0}), PLAN.stage("train"), {0: status}, {}) is None
    assert forecast(facts(), PLAN.stage("train"), {}, {}) is None


def test_whole_progress_counts_tasks_that_have_not_started_as_the_average():
    known = [said("generate", "running", index=i, progress=progress(10, 60, "answers")) for i in (0, 1)]
    assert whole_progress(PLAN.stage("generate"), known) == progress(20, 180, "answers")
    assert whole_progress(PLAN.stage("generate"), []) is None
