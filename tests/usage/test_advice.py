"""Advice is given where it is right, with a value that the spec takes, and where it is not sure nothing is said."""

from __future__ import annotations

from typing import Any

import pytest

from hpcsft.plan import Plan, make_plan
from hpcsft.spec import parse_spec
from hpcsft.spec.base import parse_time_min
from hpcsft.usage.advice import advise, friendly_time
from hpcsft.usage.record import MS_PER_HOUR, Hours, Saves, StageUsage
from tests.conftest import make_spec_values


def plan(**cluster: Any) -> Plan:
    """Training on two processes, global batch 8 in micro batches of 2."""
    values = make_spec_values("/m", "/d.jsonl", "/p.json", "/runs")
    values["cluster"] = {"train": {"tasks_per_node": 2}, **cluster}
    values["train"] |= {"global_batch_size": 8, "micro_batch_size": 2}
    return make_plan(parse_spec({key: str(v) if hasattr(v, "parts") else v for key, v in values.items()}))


def used(stage: str = "train", **given: Any) -> StageUsage:
    """A stage that was done in 9 of 10 hours, without a flaw."""
    values: dict[str, Any] = {"done": True, "attempts": 1, "restarts": {}, "queue_s": 60, "requeue_s": 0}
    values |= {"allocated_s": 32400, "longest_task_s": 32400, "longest_attempt_s": 32400, "limit_s": 36000}
    values |= {"hours": hours(work=9), **given}
    return StageUsage(stage=stage, **values)


def hours(**parts: float) -> Hours:
    return Hours.of("GPU-hours", {part: round(value * MS_PER_HOUR) for part, value in parts.items()})


def advised(*stages: StageUsage, in_slurm: bool = True, **cluster: Any) -> list[str]:
    """Settings, or the texts of advice that has none."""
    return [advice.setting or advice.text for advice in advise(stages, plan(**cluster), in_slurm)]


def short(seconds: float, **given: Any) -> StageUsage:
    times = {"longest_task_s": seconds, "longest_attempt_s": seconds, "allocated_s": seconds}
    return used(**{**times, **given})


def test_a_run_that_used_what_it_asked_for_is_left_alone():
    assert advised(used(), used("report"), train={"tasks_per_node": 2, "mem_gb": 64}) == []


@pytest.mark.parametrize(
    ("usage", "setting"),
    [
        (short(4 * 3600), ["cluster.train.time=06:00:00"]),
        (short(17999), ["cluster.train.time=07:30:00"]),
        (short(18000), []),
        (short(600, limit_s=1800), []),
        (short(60, done=False), []),
        (short(60, longest_attempt_s=0), []),
        (short(4 * 3600, longest_task_s=9 * 3600), []),
    ],
    ids=["much less", "just under half", "half", "short limit", "unfinished", "by hand", "in many attempts"],
)
def test_a_time_limit_is_lowered_only_if_the_whole_stage_fits_twice(usage, setting):
    assert advised(usage) == setting
    assert advised(usage, in_slurm=False) == []


def test_what_was_interrupted_is_told_to_be_a_sum():
    (advice,) = advise([short(3600, restarts={"signal": 1})], plan(), in_slurm=True)
    assert advice.text.startswith("used 10% of the time limit with all attempts together; ")


@pytest.mark.parametrize("minutes", [0.2, 9, 10, 11, 59, 61, 299, 361, 1439, 1441, 5000])
def test_friendly_times_are_enough_and_not_much_more(minutes):
    found = parse_time_min(friendly_time(minutes))
    assert minutes <= found <= max(minutes + 10, minutes * 1.3) and found % 5 == 0


def test_times_as_slurm_writes_them():
    assert [friendly_time(minutes) for minutes in (5, 70, 2000)] == ["00:10:00", "01:15:00", "1-12:00:00"]


def test_a_time_limit_that_was_reached_is_no_mistake():
    (told,) = advised(used(restarts={"timeout": 2}, attempts=3, longest_task_s=90000))
    assert told == "reached its time limit of 12:00:00 2 times and was requeued each time; nothing is wrong"


def test_memory_is_lowered_with_room_to_spare():
    assert advised(used(memory_gb=20.0, asked_memory_gb=64)) == ["cluster.train.mem_gb=25"]
    assert advised(used(memory_gb=20.0, asked_memory_gb=40)) == []
    assert advised(used(memory_gb=0.5, asked_memory_gb=2)) == [], "nobody waits for 2 GB"
    assert advised(used(memory_gb=20.0)) == [], "the default of the cluster is not asked for"
    gpus = {"train": {"gpus_per_node": 2}}
    assert advised(used(memory_gb=20.0, asked_memory_gb=64), **gpus) == [], "locked pages may not be counted"
    assert advised(used("generate", memory_gb=20.0, asked_memory_gb=64)) == ["cluster.generate.mem_gb=25"]


def test_a_larger_micro_batch_only_where_the_arithmetic_allows_it():
    half = {"gpu_memory_gb": 40.0, "gpu_total_gb": 80.0}
    assert advised(used(**half)) == ["train.micro_batch_size=4"]
    assert advised(used(**{**half, "gpu_memory_gb": 48.1})) == []
    assert advised(used(**half, restarts={"out_of_memory": 1})) == []
    assert advised(used(**half), train={"tasks_per_node": 4}) == [], "there is nothing left to accumulate"


SAVES = Saves(every_s=3600, held_s=5, took_s=30)


def test_whoever_loses_much_saves_more_often():
    """Young's optimum for 5 s and an interruption every 2 h is 4.5 minutes."""
    lost = {"hours": hours(work=8, steps_again=1), "restarts": {"preemption": 4}, "allocated_s": 28800}
    assert advised(used(**lost, saves=SAVES)) == ["train.checkpoint.every_minutes=5"]
    slow = Saves(every_s=3600, held_s=5, took_s=600)
    assert advised(used(**lost, saves=slow)) == ["train.checkpoint.every_minutes=20"], "one write after the other"
    assert advised(used(**{**lost, "hours": hours(work=9, steps_again=0.9)}, saves=SAVES)) == []
    assert advised(used(**lost)) == ["train.checkpoint.every_minutes=16"], "no save was ever seen"
    assert advised(used(**lost, saves=SAVES), in_slurm=False) == ["train.checkpoint.every_minutes=5"]


def test_another_partition_where_more_saves_do_not_help_and_the_cluster_was_the_cause():
    lost = {"hours": hours(work=8, start_again=2), "saves": SAVES}
    (told,) = advised(used(**lost, restarts={"preemption": 3, "hang": 1}))
    assert told.startswith("lost 20% of its GPU-hours to restarts; a partition or qos")
    assert advised(used(**lost, restarts={"hang": 3})) == []
    often = Saves(every_s=60, held_s=5, took_s=30)
    again = {"hours": hours(work=8, steps_again=2), "saves": often, "restarts": {"node_failure": 3}}
    assert "a partition" in advised(used(**again))[0]


def test_waiting_for_data():
    (told,) = advised(used(hours=hours(work=8, data=1)))
    assert told.startswith("waited for data in 11% of its time")
    assert advised(used(hours=hours(work=9, data=1))) == []


def test_of_a_few_minutes_nothing_is_concluded():
    small = {"allocated_s": 300, "longest_task_s": 300, "limit_s": 600, "longest_attempt_s": 300}
    parts = {"hours": hours(work=0.1, steps_again=0.1, data=0.1), "restarts": {"preemption": 3}}
    assert advised(used(**small, **parts, gpu_memory_gb=1.0, gpu_total_gb=80.0)) == []


def test_a_queue_longer_than_the_run_is_told():
    (told,) = advised(used(queue_s=30000, requeue_s=3000))
    assert told.startswith("waited in the queue for longer than it ran")
    assert advised(used(queue_s=30000)) == []
    assert advised(short(5, limit_s=10, queue_s=100)) == []
