"""Guards a pipe: a line when something has changed and only then, and the same for programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.view.events import events, plain_line, signs_of_life
from tests.monitor.screens import FAILED, SILENT, TRAIN, WAITS
from tests.monitor.situations import PLAN, progress, queued, said, stage_of, state_of


def done(*stages: str) -> list[Any]:
    return [said(stage, "done", index=index) for stage in stages for index in range(PLAN.stage(stage).tasks)]


def running(steps: int, **more: Any) -> RunState:
    status = said("train", "running", progress=progress(steps), **more)
    after = [
        queued(stage, "PENDING", index=i, reason="Dependency")
        for stage in ("generate", "judge", "report")
        for i in range(3)
    ]
    return state_of(*done("preprocess"), status, queued("train", "RUNNING"), *after)


def lines(before: RunState | None, after: RunState) -> list[str]:
    return [event.text for event in events(before, after)]


def test_plain_lines():
    def line(*known: Any) -> str:
        return plain_line(stage_of("train", *known), 0.0)

    assert (
        line(queued("train", "PENDING", reason="Priority"))
        == "train: pending (waiting: other jobs come first (Priority))"
    )
    status = said("train", "running", restart=1, progress=progress(3, 7000))
    assert line(status, queued("train", "RUNNING")) == "train: running (3/7,000 steps · 1:23 of 12:00:00 · 1 restart)"
    failed = said("train", "failed", message="the loss is nan", hint="lower it", log="logs/train/102_0/0.err")
    assert line(failed) == "train: failed: the loss is nan [logs/train/102_0/0.err]; lower it"
    assert line(said("train", "failed")) == "train: failed: see the log"
    assert line(said("train", "done")) == "train: done"


def test_a_failure_is_told_with_its_name_its_log_and_what_to_do():
    line = next(text for text in lines(None, FAILED) if text.startswith("train:"))
    assert line.startswith("train: failed: out of memory on the GPU") and "[logs/train/102_0/3.err]; " in line


def test_the_first_look_tells_everything():
    told = lines(None, running(3))
    assert [line.split(":")[0] for line in told] == [*PLAN.stage_names, "run"] and told[-1] == "run: running"


def test_nothing_changed_is_no_line():
    assert lines(running(3), running(3)) == []
    assert lines(running(3), running(9)) == [], "progress counts in tenths"
    assert lines(SILENT, SILENT) == []


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (running(10), ["train: running (10/100 steps · 1:23 of 12:00:00)"]),
        (running(3, restart=1), ["train: running (3/100 steps · 1:23 of 12:00:00 · 1 restart)"]),
    ],
)
def test_each_change_is_one_line(after, expected):
    assert lines(running(3), after) == expected


def test_an_end_is_told_with_the_state_of_the_run():
    told = lines(running(3), FAILED)
    assert [line.split(":")[0] for line in told] == ["train", "generate", "judge", "report", "run"]
    assert told[-1] == "run: failed" and lines(None, WAITS)[-1] == "run: waiting for a judge"


def test_a_silence_of_slurm_and_its_end_are_told_once():
    before = running(3)
    after = before.model_copy(update={"problem": "squeue does not answer"})
    assert lines(before, after) == ["slurm: squeue does not answer"]
    assert lines(after, after) == [] and lines(after, before) == ["slurm: answers again"]


def test_a_run_of_another_cluster_is_told_once():
    before = running(3)
    after = before.model_copy(update={"unseen": "submitted on cluster a; this is b"})
    assert lines(before, after) == ["slurm: is not asked: submitted on cluster a; this is b"]
    assert lines(after, after) == []
    over = FAILED.model_copy(update={"unseen": "submitted on cluster a; this is b"})
    assert not [line for line in lines(None, over) if line.startswith("slurm")], "nothing is missing any more"


def test_events_are_the_same_for_programs():
    for event in events(None, FAILED):
        row = json.loads(event.model_dump_json(exclude_none=True))
        assert row["schema_version"] == 1 and row["run_dir"] == FAILED.run_dir and row["text"] == event.text
    row = json.loads(events(None, FAILED)[1].model_dump_json())
    assert (row["event"], row["stage"], row["state"], row["job_ids"]) == ("stage", "train", "failed", ["102"])
    assert row["log"] == "logs/train/102_0/3.err" and row["hint"]


def test_signs_of_life():
    state = running(3).model_copy(update={"train": TRAIN})
    assert [event.text for event in signs_of_life(state)] == [
        "train: running (3/100 steps · 1:23 of 12:00:00) · loss 1.2346"
    ]
    assert [(event.event, event.text) for event in signs_of_life(state_of(ids={}))] == [("sign", "run: unsubmitted")]


def test_a_run_that_cannot_be_read_says_why_and_ends_the_watch():
    lost = RunState(
        run_dir="/runs/x-0123abcd", state="unsubmitted", stages=[], train={}, lost="plan.json is torn", now=5
    )
    assert lines(None, lost) == ["run: unreadable: plan.json is torn"] and lines(lost, lost) == []
    assert lost.finished and lost.exit_code == 1
    gone = running(3).model_copy(update={"lost": "no run here any more", "gone": True})
    assert lines(running(3), gone) == ["run: gone: no run here any more"] and gone.finished
    hiccup = running(3).model_copy(update={"lost": "Stale file handle"})
    assert not hiccup.finished and hiccup.exit_code == 101
