"""What a stage used in all: queue, hours in the right unit, restarts by cause, memory of a node."""

from __future__ import annotations

import pytest

from hpcsft.usage.account import Training
from hpcsft.usage.attempts import Attempt
from tests.usage.story import BEGIN_MS, Story, stage, usage


def moments(*seconds: float) -> list[int]:
    return [BEGIN_MS + round(second * 1000) for second in seconds]


def one(begin_s: float, seconds: float, job_id: str = "7", index: int = 0, **start: object) -> list[Attempt]:
    """A task that was done in one attempt."""
    story = Story("generate", index, job_id, begin_s)
    story.start(world_size=1, **start)
    story.row("done", seconds)
    return story.attempts()


@pytest.mark.parametrize(
    ("submitted_s", "before_s", "queued_s"),
    [(0, [], 100), (0, [30, 60], 40), (80, [60], 20), (0, [60, 5000], 40), (300, [], 0)],
    ids=["from submission", "from what it waited for", "submitted later", "done once more since", "clocks differ"],
)
def test_the_queue_begins_where_the_stage_could_have_started(submitted_s, before_s, queued_s):
    (submitted_ms,) = moments(submitted_s)
    facts = {"submitted_ms": {"7": submitted_ms}, "before_ms": moments(*before_s)}
    assert usage(one(100, 50), **facts).queue_s == queued_s


def restarted(job_id: str) -> list[Attempt]:
    """Ended after 50 s, started again 1000 s later."""
    story = Story("generate", job_id="7")
    story.start(world_size=1)
    story.row("stopped", 50, cause="preemption")
    story.job_id, story.restart = job_id, 1 if job_id == "7" else 0
    story.start(1000, world_size=1)
    story.row("done", 25)
    return story.attempts()


@pytest.mark.parametrize(("job_id", "waited_s"), [("7", 1000), ("8", 150), ("hand-1", 0)])
def test_what_nobody_had_submitted_was_not_waited_for(job_id, waited_s):
    """A job that is requeued waits from its end; one that was submitted anew from then; a person does not queue."""
    submitted = dict(zip(("7", "8"), moments(0, 900), strict=True))
    found = usage(restarted(job_id), submitted_ms=submitted)
    assert (found.queue_s, found.requeue_s, found.restarts) == (0, waited_s, {"preemption": 1})


def test_a_person_does_not_queue():
    """Started twice from one shell, with a night in between."""
    story = Story("generate", job_id="hand-3")
    for after_s in (0, 30000):
        story.start(after_s, world_size=1)
        story.row("stopped", 50, cause="signal")
    assert usage(story.attempts()).requeue_s == 0


def test_tasks_of_an_array_together():
    tasks = one(100, 50, "7_0"), one(40, 90, "7_1", 1), one(400, 10, "7_2", 2)
    found = usage(*tasks, submitted_ms={"7": BEGIN_MS})
    assert (found.queue_s, found.allocated_s, found.longest_task_s, found.attempts) == (40, 150, 90, 3)
    assert found.restarts == {} and found.hours.total == pytest.approx(150 / 3600)


@pytest.mark.parametrize(
    ("plan", "unit", "units"),
    [
        (stage("generate"), "process-hours", 1),
        (stage("generate", cpus_per_task=6), "CPU-hours", 6),
        (stage("generate", cpus_per_task=6, gpus_per_node=4), "GPU-hours", 4),
    ],
)
def test_hours_are_those_of_the_dearest_that_was_asked_for(plan, unit, units):
    hours = usage(one(0, 1800), plan=plan).hours
    assert (hours.unit, hours.total, hours.computed, hours.parts) == (unit, units / 2, units / 2, {"work": units / 2})


def test_training_that_went_on_on_another_number_of_gpus_is_counted_as_it_was():
    story = Story()
    story.start(world_size=16)
    story.row("failed", 1800, cause="code")
    story.job_id = "8"
    story.start(world_size=8)
    story.row("done", 1800)
    plan = stage(nodes=1, gpus_per_node=8, tasks_per_node=8, cpus_per_task=4)
    hours = usage(story.attempts(), plan=plan, training=Training()).hours
    assert (hours.unit, hours.total, hours.lost) == ("GPU-hours", 12, 8)


def test_an_attempt_that_kept_no_item_is_lost():
    story = Story("generate")
    story.start(world_size=1, done=3)
    story.end(1800, "rank_failure", progressed=False, status=1)
    story.requeued(0)
    story.start(world_size=1, done=3)
    story.row("done", 3600)
    hours = usage(story.attempts()).hours
    assert (hours.lost, hours.computed, hours.waiting) == (0.5, 1, 0)


def test_by_hand_there_is_no_time_limit():
    assert usage(one(0, 50, "hand-3")).longest_attempt_s == 0
    assert usage(one(0, 50, "hand-3")).longest_task_s == 50


def memory(plan: object, seen_gb: float | None, *told_gb: float) -> tuple[float | None, float | None]:
    story = Story()
    for gb in told_gb:
        story.start()
        story.row("stopped", 1, cause="signal", memory_gb=gb)
        story.restart += 1
    training = Training(memory_gb=seen_gb)
    found = usage(story.attempts(), plan=plan, training=training)
    return found.memory_gb, found.gpu_memory_gb


def test_memory_of_a_node_is_that_of_its_processes():
    on_cpus = stage(tasks_per_node=4)
    assert memory(on_cpus, 3.0, 2.0, 2.5) == (12, None)
    assert memory(on_cpus, 3.0, 2.0, 4.0) == (16, None), "an export may need more than any step"
    assert memory(stage(tasks_per_node=4, gpus_per_node=4), 30.0, 2.0) == (8, 30), "that of steps is the GPU's"


def test_the_memory_of_a_gpu_is_told_by_training():
    story = Story()
    story.start()
    story.row("ready", 1, gpu_total_gb=84.987)
    assert usage(story.attempts(), plan=stage(gpus_per_node=2), training=Training()).gpu_total_gb == 84.987


def test_saves_are_told_from_row_to_row_within_an_attempt():
    story = Story()
    for _ in range(2):
        story.start(500)
        story.resumed(30)
        for held_s in (1, 3):
            story.row("saved", 60, step=1, held_s=held_s, took_s=10 * held_s)
        story.restart += 1
    saves = usage(story.attempts(), plan=stage(), training=Training()).saves
    assert (saves.every_s, saves.held_s, saves.took_s) == (60, 2, 30)
