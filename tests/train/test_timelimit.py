"""Guards the last seconds of a job: no step begins that could not be saved any more, and none is given away."""

from __future__ import annotations

import time

import pytest

from hpcsft.attempt.identity import TaskIdentity
from hpcsft.train.timelimit import FIRST_SAVE_S, MARGIN_S, TimeLimit


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


def limit(job_id: str = "44", remaining_s: float | None = None, granted_s: float = 86400.0) -> TimeLimit:
    """`remaining_s` before the end of a job that had `granted_s` when this attempt began."""
    found = TimeLimit(TaskIdentity(job_id, 0, 0, 0, 1))
    found.most_s = granted_s / 2
    if remaining_s is not None:
        found.end = time.time() + remaining_s
    return found


@pytest.mark.parametrize("job_id", ["hand-9", "local-9", "local-9_1", "44"])
def test_without_slurm_or_its_answer_there_is_no_limit(job_id):
    found = limit(job_id)
    found.observe_step(1e9)
    assert found.end is None and not found.is_near(1e9)


def test_where_slurm_cannot_be_asked_the_end_is_what_the_batch_script_was_told(monkeypatch):
    """In a container there is no scontrol."""
    monkeypatch.setenv("SLURM_JOB_END_TIME", f"{time.time() + 100:.0f}")
    found = TimeLimit(TaskIdentity("44", 0, 0, 0, 1))
    assert found.most_s == pytest.approx(50, abs=2) and not found.is_near(1.0)
    monkeypatch.setenv("SLURM_JOB_END_TIME", f"{time.time() + 10:.0f}")
    found.end = time.time() + 10
    assert found.is_near(1.0)
    assert TimeLimit(TaskIdentity("local-9", 0, 0, 0, 1)).end is None
    monkeypatch.setenv("SLURM_JOB_END_TIME", "")
    assert TimeLimit(TaskIdentity("44", 0, 0, 0, 1)).end is None


def test_it_is_time_when_two_of_the_longest_steps_and_a_slow_save_would_just_fit():
    found = limit()
    for seconds in (2.0, 10.0, 3.0):
        found.observe_step(seconds)
    assert found.lead_s(8.0) == 2 * 10.0 + 1.5 * 8.0 + MARGIN_S
    for remaining_s, near in ((found.lead_s(8.0) + 5, False), (found.lead_s(8.0) - 1, True), (-60.0, True)):
        found.end = time.time() + remaining_s
        assert found.is_near(8.0) is near


def test_before_a_save_was_measured_it_is_taken_for_slow():
    assert limit().lead_s(0.0) == 1.5 * FIRST_SAVE_S + MARGIN_S
    assert limit(remaining_s=1.5 * FIRST_SAVE_S + MARGIN_S - 1).is_near(0.0)
    assert not limit(remaining_s=1.5 * FIRST_SAVE_S + MARGIN_S - 1).is_near(1.0)


def test_a_short_job_still_trains_for_half_of_its_time():
    """Else a save that is taken for slow would leave no time for a single step."""
    found = limit(remaining_s=60.0, granted_s=100.0)
    found.observe_step(30.0)
    assert not found.is_near(0.0)
    assert limit(remaining_s=49.0, granted_s=100.0).is_near(0.0)


def test_a_slurm_that_falls_silent_does_not_lift_the_limit():
    found = limit(remaining_s=1.0)
    end = found.end
    assert found.is_near(1.0) and found.end == end
