"""The parts of a rank's memory add up; what is said to fit fits; every hint is a spec that can be submitted."""

from __future__ import annotations

import itertools

import pytest

from hpcsft.estimate.memory import GB, PARTS, changed, hints, rank_memory, usable_bytes
from hpcsft.plan import make_plan
from hpcsft.spec import ExperimentSpec
from hpcsft.train.deepspeed_config import REDUCE_BUCKET
from tests.estimate.models import BAICHUAN2_7B, LLAMA_7B, LLAMA_7B_PARAMETERS, shape_of, spec_of

LLAMA = LLAMA_7B_PARAMETERS, shape_of(LLAMA_7B)


@pytest.mark.parametrize("shape", [None, shape_of(LLAMA_7B)])
@pytest.mark.parametrize(("zero_stage", "offload"), [(0, "none"), (1, "none"), (2, "optimizer"), (3, "all")])
def test_parts_add_up(shape, zero_stage, offload):
    spec = spec_of(train={"zero_stage": zero_stage, "offload": offload})
    found = rank_memory(spec, 8, LLAMA_7B_PARAMETERS, shape)
    document = found.document()
    assert document["total_bytes"] == sum(document[f"{part}_bytes"] or 0 for part in PARTS)
    assert document["states_bytes"] == sum(document[f"{part}_bytes"] for part in list(PARTS)[:3])
    assert all(document[f"{part}_bytes"] is None or document[f"{part}_bytes"] >= 0 for part in PARTS)
    assert (found.activations_bytes is None) == (shape is None)


def test_an_unknown_shape_leaves_activations_out():
    without, whole = (rank_memory(spec_of(zero_stage=3), 32, LLAMA_7B_PARAMETERS, shape) for shape in (None, LLAMA[1]))
    assert without.states_bytes == whole.states_bytes
    assert without.total_bytes < whole.total_bytes


@pytest.mark.parametrize(
    ("gpus", "zero_stage", "gigabytes"),
    [(1, 0, 134.8), (8, 0, 134.8), (8, 1, 39.8), (8, 2, 30.3), (8, 3, 19.5), (32, 2, 19.6), (32, 3, 8.5)],
)
def test_llama_7b_in_all(gpus, zero_stage, gigabytes):
    """2 x 1,024 positions with gradient checkpointing: a change here is a change of what people are told."""
    found = rank_memory(spec_of(zero_stage=zero_stage), gpus, *LLAMA)
    assert found.total_bytes / GB == pytest.approx(gigabytes, abs=0.1)


def test_the_step_counts_float32_gradients():
    """As DeepSpeed holds them then, measured: 20 bytes per parameter with ZeRO 0, 12 at two ranks with ZeRO 2."""
    tiny = shape_of({**LLAMA_7B, "num_hidden_layers": 1, "hidden_size": 32, "vocab_size": 32})
    number = 10**8
    small = {"zero_optimization": {"reduce_bucket_size": 1}}
    positions = {"data": {"max_length": 16}}
    found = rank_memory(spec_of(**positions, train={"zero_stage": 0, "deepspeed": small}), 2, number, tiny)
    assert found.total_bytes / number == pytest.approx(20, rel=0.01)
    found = rank_memory(spec_of(**positions, train={"zero_stage": 2, "deepspeed": small}), 2, number, tiny)
    assert found.total_bytes / number == pytest.approx(2 + 6 + 1 + 3, rel=0.01)


@pytest.mark.parametrize(
    ("gpus", "zero_stage", "gigabytes"), [(1, 0, 15.2), (8, 0, 15.2), (8, 2, 14.8), (8, 3, 5.0), (32, 3, 3.6)]
)
def test_llama_7b_with_adapters(gpus, zero_stage, gigabytes):
    """On one GPU of 24 GB: the model's 13.5, and little more. Buckets are no larger than what learns."""
    found = rank_memory(spec_of(model={"lora": {}}, train={"zero_stage": zero_stage}), gpus, *LLAMA)
    assert found.total_bytes / GB == pytest.approx(gigabytes, abs=0.1)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_buffers_follow_the_deepspeed_settings(zero_stage):
    def buffers(**settings) -> int:
        train = {"zero_stage": zero_stage, "deepspeed": {"zero_optimization": settings}, "global_batch_size": 16}
        return rank_memory(spec_of(train=train), 8, *LLAMA).buffers_bytes

    usual = buffers()
    assert usual >= 2 * REDUCE_BUCKET
    assert buffers(reduce_bucket_size=int(1e8)) < usual
    assert buffers(reduce_bucket_size="auto") == usual
    if zero_stage == 3:
        assert buffers(stage3_max_live_parameters=int(1e8)) == usual - 2 * int(9e8)
    assert buffers(overlap_comm=True) == usual + (zero_stage < 3) * 2 * REDUCE_BUCKET


@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_larger_micro_batch_needs_more(checkpointing):
    model = {"gradient_checkpointing": checkpointing}
    sizes = [
        rank_memory(spec_of(model=model, train={"zero_stage": 3, "micro_batch_size": size}), 32, *LLAMA).total_bytes
        for size in (1, 2, 4)
    ]
    assert sizes == sorted(set(sizes))


def tight(**train) -> ExperimentSpec:
    return spec_of(
        model={"gradient_checkpointing": False},
        train={"micro_batch_size": 8, **train},
        cluster={"kind": "slurm", "gpus_per_node": 8},
    )


@pytest.mark.parametrize(
    ("train", "limit_gb"),
    [({"zero_stage": 0}, 80), ({"zero_stage": 1}, 40), ({"zero_stage": 2, "micro_batch_size": 4}, 40)],
)
def test_every_hint_fits_and_can_be_submitted(train, limit_gb):
    spec, limit = tight(**train), usable_bytes(limit_gb)
    assert rank_memory(spec, 8, *LLAMA).total_bytes > limit
    found = hints(spec, 8, 1, *LLAMA, limit)
    assert found
    for hint in found:
        assert hint["total_bytes"] <= limit
        values = changed(spec, {k: v for k, v in hint["set"].items() if not k.startswith("cluster")}).model_dump()
        values["cluster"]["train"]["nodes"] = hint["set"].get("cluster.train.nodes", 1)
        again = ExperimentSpec.model_validate(values)
        make_plan(again)
        ranks = 8 * values["cluster"]["train"]["nodes"]
        assert rank_memory(again, ranks, *LLAMA).total_bytes == hint["total_bytes"]
    kinds = [tuple(hint["set"]) for hint in found]
    assert len(kinds) == len(set(kinds)), "the smallest change of each kind"


def test_single_changes_come_before_several():
    spec = spec_of(train={"zero_stage": 0}, cluster={"kind": "slurm", "gpus_per_node": 8})
    found = hints(spec, 8, 1, *LLAMA, usable_bytes(40))
    assert found[0]["set"] == {"train.zero_stage": 2}, "ZeRO 1 needs more than 38 GB"
    (together,) = hints(tight(zero_stage=0), 8, 1, *LLAMA, usable_bytes(24))[:1]
    assert together["set"].keys() >= {"model.gradient_checkpointing", "train.zero_stage"}


def test_nothing_helps_is_said_by_no_hint():
    assert hints(tight(zero_stage=0), 8, 1, *LLAMA, GB) == []


def test_hints_respect_what_goes_together():
    """Pure bfloat16 has no offload, the local cluster one node, and the global batch stays."""
    spec = tight(zero_stage=1, master_weights=False)
    local = spec.model_copy(update={"cluster": spec.cluster.model_copy(update={"kind": "local"})})
    for limit in range(4, 60, 4):
        asked = list(itertools.chain.from_iterable(hint["set"] for hint in hints(local, 8, 1, *LLAMA, limit * GB)))
        assert "train.offload" not in asked and "cluster.train.nodes" not in asked
    found = hints(tight(zero_stage=2, global_batch_size=192), 8, 1, *LLAMA, usable_bytes(80))
    assert all(192 % (8 * 8 * hint["set"].get("cluster.train.nodes", 1)) == 0 for hint in found)


def test_a_margin_is_kept():
    assert usable_bytes(80) == 76 * GB


def test_baichuan_needs_more_for_its_head():
    shapes = shape_of(BAICHUAN2_7B), shape_of({**BAICHUAN2_7B, "model_type": "llama"})
    with_norm, without = (rank_memory(spec_of(), 32, 7_505_973_248, shape).total_bytes for shape in shapes)
    assert with_norm > without
