"""From the files of a run to what it used."""

from __future__ import annotations

import json

import pytest

from hpcsft.records import Progress, StageStatus, Submission, SubmittedStage, write_json
from hpcsft.rundir import RunDir
from hpcsft.usage import Usage, usage_of
from tests.attempt.made import empty_run
from tests.usage.story import Story, time


@pytest.fixture
def run(tmp_path) -> RunDir:
    """Six stages without resources: preprocess, train (two processes), two that generate, judge, report."""
    return empty_run(tmp_path)


def said(run: RunDir, story: Story, state: str, tasks: int = 1, done: int = 1) -> None:
    """The status of a task, at the moment its story has come to."""
    status = StageStatus(
        stage=story.stage,
        index=story.index,
        state=state,
        attempt=1,
        job_id=story.job_id,
        restart=story.restart,
        progress=Progress(done=done, total=9, unit="items"),
        updated=time(story.at_ms),
    )
    write_json(run.status_file(story.stage, story.index, tasks), status)


def submitted(run: RunDir, **at_s: float) -> None:
    jobs = [
        SubmittedStage(stage=stage, job_id="7", depends_on=[], tasks=1, submitted=time(round(moment * 1000)))
        for stage, moment in at_s.items()
    ]
    run.write_submission(Submission(cluster="slurm", host="login", jobs=jobs))


def trained(run: RunDir, steps: int = 3) -> Story:
    story = Story(at_s=500)
    story.start()
    story.resumed(30)
    for _ in range(steps):
        story.step(600)
    return story


def test_before_anything_has_started_there_is_nothing_to_tell(run):
    submitted(run, preprocess=0)
    assert usage_of(run) is None


def test_stages_that_have_started_and_their_sum(run):
    first = Story("preprocess", at_s=100)
    first.start(world_size=1)
    first.row("done", 300, memory_gb=1.5)
    first.write(run)
    said(run, first, "done")
    story = trained(run)
    story.row("done", 0, memory_gb=1.0)
    story.write(run)
    said(run, story, "done")
    submitted(run, preprocess=0, train=0)
    usage = usage_of(run)
    assert [(stage.stage, stage.done, stage.queue_s) for stage in usage.stages] == [
        ("preprocess", True, 100),
        ("train", True, 100),
    ], "training was queued from the end of preprocessing"
    assert [stage.memory_gb for stage in usage.stages] == [1.5, 4.0]
    (total,) = usage.totals
    assert total.total == pytest.approx((300 + 2 * 1830) / 3600)
    assert total.computed == pytest.approx((300 + 2 * 1800) / 3600)
    assert usage.advice, "hours were asked for, minutes used"


def test_the_document_of_the_monitor_can_be_read_back(run):
    story = trained(run)
    story.write(run)
    usage = usage_of(run)
    assert Usage.model_validate(json.loads(json.dumps(usage.model_dump(mode="json")))) == usage


def test_what_still_runs_is_counted_up_to_its_last_sign_of_life(run):
    story = trained(run)
    story.write(run)
    assert usage_of(run).stages[0].allocated_s == 1830, "the last step"
    story.passes(40)
    said(run, story, "running")
    assert usage_of(run).stages[0].allocated_s == 1870, "the status"
    write_json(run.heartbeat / "1.json", {"updated": time(story.at_ms + 5000)})
    (run.heartbeat / "0.json").write_text("{")
    usage = usage_of(run)
    assert usage.stages[0].allocated_s == 1875, "a heartbeat"
    assert not usage.stages[0].done and usage.advice == []


def test_a_stage_is_done_when_all_of_its_tasks_are(run):
    submitted(run, generate=0)
    for index in (0, 1):
        story = Story("generate", index, f"7_{index}", at_s=50)
        story.start(world_size=1)
        story.row("done", 100)
        story.write(run, tasks=2)
        said(run, story, "done", tasks=2)
        (found,) = usage_of(run).stages
        assert (found.attempts, found.done) == (index + 1, index == 1)


def test_items_that_were_kept_are_known_from_the_status(run):
    story = Story("generate", 0, "7_0")
    story.start(world_size=1)
    story.row("failed", 100, cause="code")
    story.write(run, tasks=2)
    said(run, story, "failed", tasks=2, done=0)
    assert usage_of(run).totals[0].lost == pytest.approx(100 / 3600)
    said(run, story, "failed", tasks=2, done=5)
    assert usage_of(run).totals[0].lost == 0


def test_a_torn_line_of_the_metrics_is_passed_over(run):
    trained(run).write(run)
    with open(run.metrics, "a") as file:
        file.write('{"step": 4, "ep')
    assert usage_of(run).stages[0].hours.computed == pytest.approx(2 * 1800 / 3600)
