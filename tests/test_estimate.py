"""The figures that a dry run shows before anyone waits in a queue, against those of the ZeRO paper."""

from __future__ import annotations

import pytest

from hpcsft.estimate import estimate_memory, gpu_hours_limit
from hpcsft.plan import make_plan
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
