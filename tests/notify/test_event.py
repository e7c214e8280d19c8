"""What there is to tell: the end of a run or its need of a person, and nothing that another attempt may change."""

from __future__ import annotations

import pytest

from hpcsft.notify.event import Event, ended_by_hand, event_of, last_word_s
from hpcsft.records import StageStatus, Submission, SubmittedStage

TASKS = {"preprocess": 2, "train": 1, "judge": 1, "report": 1}


def submission(*further: tuple[str, str], stages: dict[str, int] = TASKS) -> Submission:
    """All stages, as jobs 1, 2, ...; then `further` ones, as (stage, job id)."""
    rows = [(stage, str(number)) for number, stage in enumerate(stages, 1)] + list(further)
    jobs = [
        SubmittedStage(stage=name, job_id=job, depends_on=[], tasks=TASKS[name], submitted="") for name, job in rows
    ]
    return Submission(cluster="slurm", host="login", jobs=jobs)


def status(stage: str, state: str, job_id: str, index: int = 0, updated: str = "") -> StageStatus:
    return StageStatus(stage=stage, index=index, state=state, attempt=1, job_id=job_id, message="m", updated=updated)


DONE = [
    status("preprocess", "done", "1_0"),
    status("preprocess", "done", "1_1", 1),
    status("train", "done", "2"),
    status("judge", "done", "3"),
    status("report", "done", "4"),
]
FAILED = Event("failed", "train", "m")


def test_a_run_is_done_when_all_that_was_submitted_is():
    assert event_of(submission(), DONE, False) == Event("done")
    for missing in range(len(DONE)):
        assert event_of(submission(), DONE[:missing] + DONE[missing + 1 :], False) is None
    part = submission(stages={"preprocess": 2, "train": 1})
    assert event_of(part, DONE[:3], False) == Event("done")


def test_what_was_done_in_an_earlier_submission_stays_done():
    again = submission(("judge", "8"), ("report", "9"))
    assert event_of(again, DONE[:3], False) is None
    rest = [status("judge", "done", "8"), status("report", "done", "9")]
    assert event_of(again, DONE[:3] + rest, False) == Event("done")


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_an_attempt_that_may_be_followed_by_another_is_nothing_to_tell(state):
    assert event_of(submission(), [*DONE[:2], status("train", state, "2")], False) is None


def test_a_failure_is_told_before_what_waits():
    waits, fails = status("judge", "waiting", "3"), status("preprocess", "failed", "1_1", 1)
    assert event_of(submission(), [waits], False) == Event("waiting", "judge", "m")
    assert event_of(submission(), [waits, fails], False) == Event("failed", "preprocess", "m")


def test_a_failure_of_an_earlier_submission_is_told_no_more():
    failed = [*DONE[:2], status("train", "failed", "2")]
    assert event_of(submission(), failed, False) == FAILED
    assert event_of(submission(("train", "7")), failed, False) is None
    assert event_of(submission(("train", "7")), [*DONE[:2], status("train", "failed", "7")], False) == FAILED


def test_nothing_is_told_of_what_was_cancelled_or_never_submitted():
    assert event_of(submission(), [*DONE[:2], status("train", "failed", "2")], True) is None
    assert event_of(submission(), DONE, True) is None
    assert event_of(None, DONE, False) is None
    assert event_of(Submission(cluster="slurm", host="login"), [], False) is None


def test_who_finished_a_run_by_hand_knows():
    jobs = [status("train", "done", "2", updated="2026-01-01"), status("judge", "waiting", "3", updated="2026-01-02")]
    by_hand = status("judge", "done", "hand-7", updated="2026-01-03")
    assert ended_by_hand([by_hand, *jobs])
    assert not ended_by_hand([by_hand, *jobs, status("report", "done", "4", updated="2026-01-04")])
    assert not ended_by_hand([])


def test_the_last_word_of_a_run_is_the_newest_that_any_task_said():
    said = [status("train", "failed", "2", updated="1970-01-01T00:02:00.500+00:00")]
    said.append(status("preprocess", "done", "1_0", updated="1970-01-01T00:01:00.000+00:00"))
    assert last_word_s(said) == 120.5
    assert last_word_s([]) is None and last_word_s(DONE) is None
