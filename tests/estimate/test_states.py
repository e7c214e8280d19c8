"""Model states against the figures of the ZeRO paper and against DeepSpeed's own estimators."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from hpcsft.estimate.states import checkpoint_bytes, gpu_hours_limit, model_states
from hpcsft.plan import make_plan
from tests.estimate.models import BAICHUAN2_7B_PARAMETERS, LLAMA_7B, LLAMA_7B_PARAMETERS, shape_of, spec_of

PAPER_GB = 1e9


@pytest.mark.parametrize(("zero_stage", "gb"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_model_states_are_those_of_the_zero_paper(zero_stage, gb):
    """Rajbhandari et al. 2020, figure 1: 7.5 billion parameters, 64 GPUs, mixed precision with Adam."""
    states = model_states(spec_of(zero_stage=zero_stage), 64, 7_500_000_000)
    assert round(states.states_bytes / PAPER_GB, 1) == gb


@pytest.mark.parametrize(
    ("parameters", "gpus", "gb"),
    [
        (LLAMA_7B_PARAMETERS, 1, (107.8, 107.8, 107.8, 107.8)),
        (LLAMA_7B_PARAMETERS, 8, (107.8, 37.1, 25.3, 13.5)),
        (LLAMA_7B_PARAMETERS, 32, (107.8, 29.5, 16.4, 3.4)),
        (BAICHUAN2_7B_PARAMETERS, 1, (120.1, 120.1, 120.1, 120.1)),
        (BAICHUAN2_7B_PARAMETERS, 8, (120.1, 41.3, 28.1, 15.0)),
        (BAICHUAN2_7B_PARAMETERS, 32, (120.1, 32.8, 18.3, 3.8)),
    ],
)
def test_real_models_by_the_formulas_of_the_paper(parameters, gpus, gb):
    """(2 + 2 + 12), 2 + 2 + 12/N, 2 + (2 + 12)/N and (2 + 2 + 12)/N bytes per parameter, in GB."""
    found = [model_states(spec_of(zero_stage=stage), gpus, parameters).states_bytes for stage in range(4)]
    assert tuple(round(states / PAPER_GB, 1) for states in found) == gb


@pytest.mark.parametrize(
    ("zero_stage", "parts"),
    [(0, (2.0, 2.0, 12.0)), (1, (2.0, 2.0, 3.0)), (2, (2.0, 0.5, 3.0)), (3, (0.5, 0.5, 3.0))],
)
def test_each_stage_shards_one_part_more(zero_stage, parts):
    states = model_states(spec_of(zero_stage=zero_stage), 4, 1000)
    found = (states.parameters_bytes, states.gradients_bytes, states.optimizer_bytes)
    assert tuple(part / 1000 for part in found) == parts


@pytest.mark.parametrize(
    ("dtype", "zero_stage", "master_weights", "parts"),
    [
        ("float32", 0, True, (4, 4, 8)),
        ("float32", 2, True, (4, 4, 12)),
        ("bfloat16", 0, True, (2, 2, 12)),
        ("bfloat16", 2, True, (2, 2, 12)),
        ("bfloat16", 2, False, (2, 2, 6)),
    ],
)
def test_bytes_of_a_parameter_are_those_that_deepspeed_keeps(dtype, zero_stage, master_weights, parts):
    """Counted in DeepSpeed 0.19, tensor by tensor; in files, 16 bytes in float32 with ZeRO 2."""
    spec = spec_of(dtype, train={"zero_stage": zero_stage, "master_weights": master_weights})
    states = model_states(spec, 1, 1000)
    found = (states.parameters_bytes, states.gradients_bytes, states.optimizer_bytes)
    assert tuple(part / 1000 for part in found) == parts
    assert states.checkpoint_bytes == 1000 * (parts[0] + parts[2])


def test_a_checkpoint_is_as_large_on_any_number_of_ranks():
    """Parameters and optimizer states, of all ranks together: what the disk has to hold."""
    sizes = {
        model_states(spec_of(zero_stage=stage), world_size, 1000).checkpoint_bytes
        for stage in (0, 1, 2, 3)
        for world_size in (1, 7)
    }
    assert sizes == {14_000}
    assert checkpoint_bytes(spec_of(), 1000) == 14_000
    assert checkpoint_bytes(spec_of(), None) is None


@pytest.mark.parametrize(
    ("zero_stage", "parts"),
    [(0, (1.0, 1.0, 12.0)), (1, (1.0, 1.0, 3.0)), (2, (1.0, 0.25, 3.0)), (3, (0.25, 0.25, 3.0))],
)
def test_adapters_alone_have_gradients_and_optimizer_states(zero_stage, parts):
    """Frozen parameters take the bytes of an element, which only ZeRO 3 shards, and are in no checkpoint."""
    adapters = 39_976_960
    spec = spec_of(model={"lora": {}}, train={"zero_stage": zero_stage})
    found = model_states(spec, 4, LLAMA_7B_PARAMETERS, shape_of(LLAMA_7B))
    frozen_and_adapters = 2 * (LLAMA_7B_PARAMETERS + adapters)
    assert found.parameters_bytes == parts[0] * frozen_and_adapters
    assert found.gradients_bytes == parts[1] * 2 * adapters
    assert found.optimizer_bytes == parts[2] * adapters
    assert found.checkpoint_bytes == 14 * adapters
    assert checkpoint_bytes(spec, LLAMA_7B_PARAMETERS, shape_of(LLAMA_7B)) == 14 * adapters


def test_of_an_unknown_shape_all_parameters_are_counted_as_learning():
    """An upper bound: nobody knows how many adapters there will be."""
    lora, whole = (model_states(spec_of(model={"lora": lora}), 4, 1000) for lora in ({}, None))
    assert lora == whole


def test_a_share_is_rounded_up():
    assert model_states(spec_of(zero_stage=3), 3, 1).parameters_bytes == 1


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_what_is_offloaded_is_counted_on_the_host(zero_stage):
    """Master weights and moments, with float32 gradients for them and a copy in the model's type: 18 bytes."""
    there = model_states(spec_of(zero_stage=zero_stage), 4, 1_000_000)
    away = model_states(spec_of(train={"zero_stage": zero_stage, "offload": "optimizer"}), 4, 1_000_000)
    assert (there.host_bytes, away.optimizer_bytes) == (0, 0)
    assert away.host_bytes == 18 * 1_000_000 / 4
    assert away.gradients_bytes == (there.gradients_bytes if zero_stage == 1 else 0)
    assert away.checkpoint_bytes == there.checkpoint_bytes


def test_parameters_are_offloaded_too():
    away = model_states(spec_of(train={"zero_stage": 3, "offload": "all"}), 4, 1_000_000)
    assert away.states_bytes == 0
    assert away.host_bytes == (18 + 2) * 1_000_000 / 4


ESTIMATORS = """
import json, sys
from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as zero2
from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as zero3
N = int(sys.argv[1])
print(json.dumps({
    "2": zero2(N, 8, 4, cpu_offload=False)[1],
    "2 offload": zero2(N, 8, 4, cpu_offload=True)[1],
    "3": zero3(N, 0, 8, 4, cpu_offload=False, cpu_offload_params=False)[1],
    "3 offload": zero3(N, 0, 8, 4, cpu_offload=True, cpu_offload_params=False)[1],
    "3 offload all": zero3(N, 0, 8, 4, cpu_offload=True, cpu_offload_params=True)[1],
}))
"""


def test_deepspeed_estimates_the_same():
    """Its estimators count the float32 gradients of the optimizer step as states; here they are `step_bytes`.

    They count 2 bytes less for ZeRO 3, without the gradients in bfloat16.
    """
    done = subprocess.run(
        [sys.executable, "-c", ESTIMATORS, str(LLAMA_7B_PARAMETERS)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "DS_ACCELERATOR": "cpu"},
    )
    theirs = json.loads(done.stdout.splitlines()[-1])

    def ours(zero_stage: int, offload: str = "none") -> int:
        spec = spec_of(train={"zero_stage": zero_stage, "offload": offload})
        return model_states(spec, 32, LLAMA_7B_PARAMETERS).states_bytes

    in_step = 4 * LLAMA_7B_PARAMETERS / 32
    assert theirs["2"] == pytest.approx(ours(2) + in_step, rel=1e-6)
    assert theirs["3"] == pytest.approx(ours(3) + in_step - 2 * LLAMA_7B_PARAMETERS / 32, rel=1e-6)
    assert theirs["2 offload"] == pytest.approx(ours(2, "optimizer"), rel=1e-6)
    assert theirs["3 offload"] == pytest.approx(ours(3, "optimizer"), rel=1e-6)
    assert theirs["3 offload all"] == ours(3, "all") == 0


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
