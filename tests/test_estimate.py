"""The figures that a dry run shows before anyone waits in a queue, against those of the ZeRO paper."""

from __future__ import annotations

import pytest

from hpcsft.estimate import (
    SAVE_BYTES_PER_S,
    STOP_MARGIN_S,
    estimate_memory,
    gpu_hours_limit,
    with_measured_lead,
    with_signal_lead,
)
from hpcsft.plan import Plan, make_plan
from hpcsft.spec import ExperimentSpec, parse_spec

PAPER_GB = 1e9
PAPER_PARAMETERS = 7_500_000_000
PAPER_GPUS = 64


def spec_of(dtype: str = "bfloat16", zero_stage: int = 2, **sections) -> ExperimentSpec:
    return parse_spec(
        {
            "model": {"path": "m", "dtype": dtype},
            "data": {"train": ["d.jsonl"]},
            "train": {"zero_stage": zero_stage},
            **sections,
        }
    )


@pytest.mark.parametrize(("zero_stage", "gb"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_model_states_are_those_of_the_zero_paper(zero_stage, gb):
    """Rajbhandari et al. 2020, figure 1: 7.5 billion parameters, 64 GPUs, mixed precision with Adam."""
    estimate = estimate_memory(spec_of(zero_stage=zero_stage), PAPER_GPUS, PAPER_PARAMETERS)
    assert round(estimate.states_bytes / PAPER_GB, 1) == gb


@pytest.mark.parametrize(
    ("zero_stage", "parts"),
    [(0, (2.0, 2.0, 12.0)), (1, (2.0, 2.0, 3.0)), (2, (2.0, 0.5, 3.0)), (3, (0.5, 0.5, 3.0))],
)
def test_each_stage_shards_one_part_more(zero_stage, parts):
    estimate = estimate_memory(spec_of(zero_stage=zero_stage), 4, 1000)
    found = (estimate.parameters_bytes, estimate.gradients_bytes, estimate.optimizer_bytes)
    assert tuple(part / 1000 for part in found) == parts


def test_float32_has_no_second_copy_of_the_weights():
    estimate = estimate_memory(spec_of("float32", 0), 1, 1000)
    assert (estimate.parameters_bytes, estimate.gradients_bytes, estimate.optimizer_bytes) == (4000, 4000, 8000)


def test_a_checkpoint_is_as_large_on_any_number_of_ranks():
    """Parameters and optimizer states, of all ranks together: what the disk has to hold."""
    sizes = {
        estimate_memory(spec_of(zero_stage=stage), world_size, 1000).checkpoint_bytes
        for stage in (0, 1, 2, 3)
        for world_size in (1, 7)
    }
    assert sizes == {14_000}


def test_a_share_is_rounded_up():
    assert estimate_memory(spec_of(zero_stage=3), 3, 1).parameters_bytes == 1


def test_gpu_hours_count_every_task_of_every_stage():
    cluster = {
        "gpus_per_node": 4,
        "time": "02:00:00",
        "train": {"nodes": 2, "time": "10:00:00"},
        "generate": {"gpus_per_node": 1},
        "judge": {"gpus_per_node": 0},
    }
    plan = make_plan(spec_of(cluster=cluster, evaluate={"prompts": "p.json", "shards": 3}))
    assert plan.stage("train").gpu_hours_limit == 2 * 4 * 10
    assert plan.stage("generate").gpu_hours_limit == 3 * 1 * 2
    assert gpu_hours_limit(plan) == 80 + 6


def test_without_gpus_there_are_no_gpu_hours():
    assert gpu_hours_limit(make_plan(spec_of())) == 0


def test_what_is_offloaded_is_counted_on_the_host():
    values = {"model": {"path": "m"}, "data": {"train": ["d.jsonl"]}}
    there = estimate_memory(parse_spec({**values, "train": {"zero_stage": 3}}), 4, 1_000_000)
    away = estimate_memory(parse_spec({**values, "train": {"zero_stage": 3, "offload": "all"}}), 4, 1_000_000)
    assert there.host_bytes == 0
    assert (away.parameters_bytes, away.optimizer_bytes) == (0, 0)
    assert away.host_bytes == there.parameters_bytes + there.optimizer_bytes
    assert away.checkpoint_bytes == there.checkpoint_bytes


def plan_of(time: str, nodes: int = 1) -> Plan:
    return make_plan(spec_of(cluster={"train": {"time": time, "nodes": nodes}}))


def lead_s(plan: Plan) -> int:
    return plan.stage("train").signal_s


def test_training_is_told_early_enough_to_write_a_checkpoint():
    size = int(100 * SAVE_BYTES_PER_S)
    assert lead_s(with_signal_lead(plan_of("10:00:00"), None)) == STOP_MARGIN_S
    assert lead_s(with_signal_lead(plan_of("10:00:00"), size)) == STOP_MARGIN_S + 200
    assert lead_s(with_signal_lead(plan_of("10:00:00", nodes=4), size)) == STOP_MARGIN_S + 50
    plan = plan_of("10:00:00")
    told = with_signal_lead(plan, size)
    assert [stage for stage in told.stages if stage.name != "train"] == [s for s in plan.stages if s.name != "train"]
    assert told.warnings == plan.warnings


SAVED = [{"event": "start"}, {"event": "saved", "took_s": 10.0}, {"event": "saved", "took_s": 40.0}]
STEPS = [{"tokens": 1000, "tokens_per_s": 1000.0}, {"tokens": 6000, "tokens_per_s": 200.0}]


def test_what_was_measured_counts_instead_of_the_guess():
    plan = with_signal_lead(plan_of("10:00:00"), int(1000 * SAVE_BYTES_PER_S))
    assert lead_s(with_measured_lead(plan, SAVED, STEPS)) == STOP_MARGIN_S + 2 * 30 + 1.5 * 40
    for journal, metrics in (([], STEPS), (SAVED, []), ([{"event": "start"}], STEPS)):
        assert with_measured_lead(plan, journal, metrics) == plan


def test_a_time_limit_that_is_too_short_is_told_once_however_often_it_is_resumed():
    plan = with_signal_lead(plan_of("00:10:00"), int(1000 * SAVE_BYTES_PER_S))
    assert lead_s(plan) == 300, "a signal ahead of the start would come at once"
    (warning,) = plan.warnings
    assert "cluster.train.time 00:10:00 is short" in warning and "1000 s" in warning and "2060 s" in warning
    slow = [{"event": "saved", "took_s": 400.0}]
    for _ in range(3):
        plan = with_measured_lead(plan, slow, STEPS)
        (warning,) = plan.warnings
        assert "a step took up to 30 s and a checkpoint 400 s" in warning and "it will be told 300 s before" in warning
    assert with_measured_lead(plan, SAVED, STEPS).warnings == []
