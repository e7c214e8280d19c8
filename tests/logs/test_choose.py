"""The log that is shown is the most telling one, or the one that was asked for."""

from __future__ import annotations

from typing import Any

import pytest

from hpcsft.errors import HpcsftError
from hpcsft.logs.choose import Wish, choose, numbers_text
from hpcsft.rundir import RunDir
from tests.logs.made import log, say, submit
from tests.runs import finished_run


@pytest.fixture
def run(spec_values: dict[str, Any]) -> RunDir:
    """A run whose training was requeued once, and whose answers come from two tasks."""
    run = finished_run(spec_values)
    submit(run)
    log(run, "train/12_0", began_s=1)
    log(run, "train/12_1", began_s=2)
    log(run, "train/12_1", rank=1, began_s=2)
    log(run, "generate/13_0_0", began_s=3)
    log(run, "generate/13_1_0", began_s=4)
    return run


def chosen(run: RunDir, **wish: Any) -> tuple[list[str], int]:
    choice = choose(run, Wish(**wish))
    return [str(attempt.folder.relative_to(run.logs)) for attempt in choice.attempts], choice.rank


@pytest.mark.parametrize(
    ("wish", "attempts"),
    [
        ({}, ["generate/13_1_0"]),
        ({"stage": "train"}, ["train/12_1"]),
        ({"stage": "train", "attempt": 1}, ["train/12_0"]),
        ({"stage": "train", "attempt": "all"}, ["train/12_0", "train/12_1"]),
        ({"stage": "generate", "index": 0}, ["generate/13_0_0"]),
        ({"stage": "generate", "attempt": "all"}, ["generate/13_1_0"]),
        ({"job_id": "13", "index": 0}, ["generate/13_0_0"]),
        ({"job_id": "12"}, ["train/12_1"]),
    ],
)
def test_what_is_asked_for_is_chosen(wish, attempts, run):
    assert chosen(run, **wish) == (attempts, 0)


def test_what_failed_first_goes_before_what_started_last(run):
    say(run, "generate/13_1_0", "failed", updated="2026-01-02")
    say(run, "generate/13_0_0", "failed", updated="2026-01-01")
    assert chosen(run) == (["generate/13_0_0"], 0)
    assert chosen(run, index=1) == (["generate/13_1_0"], 0)
    assert chosen(run, stage="train") == (["train/12_1"], 0)


def test_the_rank_that_failed_is_shown_unless_another_is_asked_for(run):
    say(run, "train/12_1", "failed", rank=1)
    assert chosen(run) == (["train/12_1"], 1)
    assert chosen(run, rank=0) == (["train/12_1"], 0)
    assert chosen(run, attempt=1, rank=0) == (["train/12_0"], 0)


def test_restarts_are_in_the_order_of_numbers(run):
    for restart in range(2, 12):
        log(run, f"train/12_{restart}", began_s=2)  # within one second
    assert chosen(run, stage="train") == (["train/12_11"], 0)


@pytest.mark.parametrize(
    ("wish", "message", "hint"),
    [
        ({"stage": "trian"}, "this run has no stage trian", "did you mean train?"),
        ({"stage": "x"}, "this run has no stage x", "its stages: preprocess, train, generate, judge, report"),
        ({"stage": "judge"}, "no log of judge", "stages with logs: generate, train"),
        ({"stage": "train", "index": 1}, "train has no task 1", "tasks: 0"),
        ({"stage": "generate", "index": 7}, "generate has no task 7", "tasks: 0, 1"),
        ({"job_id": "99"}, "no log of any stage, job 99", "stages with logs: generate, train"),
        ({"stage": "train", "job_id": "99"}, "no log of train, job 99", "jobs with logs: 12"),
        ({"stage": "train", "attempt": 3}, "train has no attempt 3", "attempts: 1 (12_0), 2 (12_1)"),
        ({"stage": "generate", "attempt": 3}, "generate, task 1 has no attempt 3", "attempts: 1 (13_1_0)"),
        ({"stage": "train", "rank": 5}, "logs/train/12_1 has no rank 5", "ranks: 0, 1"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(wish, message, hint, run):
    with pytest.raises(HpcsftError) as caught:
        choose(run, Wish(**wish))
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_task_that_has_no_log_yet(run):
    for file in (run.logs / "generate" / "13_0_0").iterdir():
        file.unlink()
    (run.logs / "generate" / "13_0_0").rmdir()
    with pytest.raises(HpcsftError, match="no log of generate, task 0") as caught:
        choose(run, Wish(stage="generate", index=0))
    assert caught.value.hint == "tasks with logs: 1"


def test_a_job_that_died_before_it_had_a_log_left_that_of_its_batch_script(run):
    folder = run.submitit / "judge"
    folder.mkdir()
    (folder / "14_0_log.out").write_text("")
    (folder / "14_0_log.err").write_text("module: command not found\n")
    with pytest.raises(HpcsftError, match="no log of judge") as caught:
        choose(run, Wish(stage="judge"))
    assert caught.value.hint == f"its batch script printed {folder}/14_0_log.err"


def test_numbers_in_words():
    assert [numbers_text(numbers) for numbers in ([], [3], [0, 1], range(256), [0, 2, 3])] == [
        "none", "3", "0, 1", "0 to 255", "0, 2, 3",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["plan.json", "status/train.json"])
@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_file_hides_no_log(run, name, text):
    """A full disk leaves such files, and then the logs are what one wants."""
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).write_text(text)
    assert chosen(run, stage="train") == (["train/12_1"], 0)
