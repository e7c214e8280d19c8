"""Tokens become steps, operations and hours; what the spec's limits do not allow is told."""

from __future__ import annotations

import pytest

from hpcsft.estimate.work import Amount, Workload, steps_per_epoch, total_flops, work_document, work_warnings
from hpcsft.flops import train_flops
from hpcsft.gpus import gpu_named
from hpcsft.plan import make_plan
from tests.estimate.models import LLAMA_7B, shape_of, spec_of

SHAPE = shape_of(LLAMA_7B)
WORK = Workload(
    basis="made up",
    exact=True,
    train=Amount(rows=64_000, tokens=50_000_000, supervised_tokens=30_000_000, sum_squared_lengths=45_000_000_000),
    validation=Amount(rows=640, tokens=500_000, supervised_tokens=300_000, sum_squared_lengths=450_000_000),
    micro_batches=25_000,
    steps_per_epoch=782,
)
CLUSTER = {"cluster": {"kind": "slurm", "gpus_per_node": 8, "train": {"nodes": 4, "time": "01:00:00"}}}


def document(spec, gpu: str = "a100-80gb", mfu: float = 0.4) -> dict:
    return work_document(spec, make_plan(spec), WORK, SHAPE, gpu_named(gpu), mfu)


def test_epochs_and_validations_are_counted():
    one, three = (total_flops(WORK, SHAPE, epochs) for epochs in (1, 3))
    train = train_flops(SHAPE, 50_000_000, 30_000_000, 45_000_000_000)
    validation = train_flops(SHAPE, 500_000, 300_000, 450_000_000) / 3
    assert one == pytest.approx(train + 2 * validation)
    assert three == pytest.approx(3 * train + 4 * validation)


def test_adapters_cost_two_thirds():
    whole, adapted = (document(spec_of(model={"lora": lora}, **CLUSTER))["flops"] for lora in (None, {}))
    assert 0.66 < adapted / whole < 0.70
    assert total_flops(WORK, SHAPE, 1, 39_976_960) - total_flops(WORK, SHAPE, 1, 0) == pytest.approx(
        39_976_960 * (6 * 50_000_000 + 2 * 2 * 500_000)
    )


def test_hours_follow_from_peak_and_utilisation():
    found = document(spec_of(**CLUSTER))
    assert (found["steps"], found["tokens"]) == (3 * 782, 150_000_000)
    assert found["gpu_hours"] == pytest.approx(found["flops"] / (312e12 * 0.4) / 3600)
    assert found["hours"] == pytest.approx(found["gpu_hours"] / 32)
    assert document(spec_of(**CLUSTER), mfu=0.2)["gpu_hours"] == pytest.approx(2 * found["gpu_hours"])
    assert found["filled_share"] == round(50_000_000 / (25_000 * 2 * 1024), 4)


@pytest.mark.parametrize(
    ("spec", "gpu"),
    [(spec_of(), "h100"), (spec_of(**CLUSTER), "v100-32gb"), (spec_of("float32", **CLUSTER), "h100")],
)
def test_without_a_peak_there_are_no_hours(spec, gpu):
    """On CPUs, on a GPU without bfloat16, in float32: the number would be wrong."""
    found = document(spec, gpu)
    assert (found["gpu_hours"], found["hours"], found["jobs"]) == (None, None, None)
    assert found["flops"]


def test_more_jobs_than_retries_are_told():
    cluster = {**CLUSTER["cluster"], "retries": {"timeout": 1}, "train": {"nodes": 4, "time": "00:10:00"}}
    spec = spec_of(cluster=cluster)
    plan, found = make_plan(spec), document(spec, mfu=0.1)
    (warning,) = work_warnings(spec, plan, found)
    assert found["jobs"] > 2
    assert f"{found['jobs']} jobs of cluster.train.time 00:10:00" in warning and "retries.timeout allows 1" in warning
    assert work_warnings(spec_of(**CLUSTER), plan, document(spec_of(**CLUSTER))) == []


def test_a_run_that_is_ended_by_its_steps_is_no_more_work_than_that():
    whole = document(spec_of(train={"epochs": 1}, **CLUSTER))
    short = document(spec_of(train={"epochs": 1, "max_steps": 391}, **CLUSTER))
    assert (short["steps"], short["steps_per_epoch"], short["tokens"]) == (391, 782, 25_000_000)
    assert 0.5 < short["flops"] / whole["flops"] < 0.52, "half of the training, and both validations"
    assert document(spec_of(train={"epochs": 1, "max_steps": 9999}, **CLUSTER)) == whole


def test_the_last_step_of_an_epoch_need_not_be_full():
    spec = spec_of(train={"global_batch_size": 8, "micro_batch_size": 2})
    assert [steps_per_epoch(number, spec) for number in (0, 1, 4, 5)] == [0, 1, 1, 2]
