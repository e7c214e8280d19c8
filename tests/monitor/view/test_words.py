"""Guards times, counts and remarks as people read them."""

from __future__ import annotations

from hpcsft.monitor.state.forecast import Forecast
from hpcsft.monitor.state.stage import StageState
from hpcsft.monitor.view.words import outlook, phrases, run_state_text, task_counts
from tests.monitor.screens import NOW, SITUATIONS
from tests.monitor.situations import progress, queued, said, stage_of


def ahead(**known: object) -> str | None:
    stage = StageState(
        name="train", state="running", job_ids=[], restarts=0, progress=progress(5, 9), forecast=Forecast(**known)
    )
    return outlook(stage, NOW)


def test_the_outlook():
    assert ahead(eta_s=600).startswith("10 min left, done about ")
    assert ahead(eta_s=600, left_s=900).endswith(", before its limit")
    stops = {"eta_s": 6000.0, "left_s": 900.0, "stops_at": 1812}
    assert ahead(**stops) == "1 h 40 min left, its limit comes in 15 min: stops near 1,812 steps, then is requeued"
    assert ahead(**stops, requeues_left=7).endswith("then is requeued (7 left)")
    assert ahead(**stops, requeues_left=0).endswith("and no requeue is left: raise cluster.retries.timeout")


def test_who_waits_for_another_stage_says_nothing():
    assert phrases(stage_of("train", queued("train", "PENDING", reason="Dependency")), NOW) == []
    told = phrases(stage_of("train", queued("train", "PENDING", reason="Priority")), NOW)
    assert told == ["waiting: other jobs come first (Priority)"]


def test_the_tasks_of_an_array_are_counted_when_they_are_not_alike():
    mixed = [said("generate", "done"), said("generate", "running", index=1), queued("generate", "RUNNING", index=1)]
    stage = stage_of("generate", *mixed, queued("generate", "PENDING", index=2, reason="Priority"))
    assert task_counts(stage) == "1 done, 1 running, 1 pending"
    alike = [queued("generate", "PENDING", index=index, reason="Priority") for index in range(3)]
    assert task_counts(stage_of("generate", *alike)) == ""


def test_the_state_of_a_run_in_words():
    assert run_state_text(SITUATIONS["waits"][0]) == "waiting for a judge"
    assert run_state_text(SITUATIONS["failed"][0]) == "failed"
