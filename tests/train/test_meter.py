"""Guards the numbers of a step: sums over the whole batch, maxima over the ranks, no invented utilisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcsft.flops import train_flops
from hpcsft.model_shape import ModelShape
from hpcsft.spec.model import LoraSpec
from hpcsft.train import meter as meters
from hpcsft.train.distributed import Ranks
from hpcsft.train.meter import Measured, Meter, maxima, peak_memory_bytes, slots
from tests.data.rows import made_rows, open_rows

CPU = torch.device("cpu")
CONFIG = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return open_rows(tmp_path_factory.mktemp("shards"), made_rows(30))


@pytest.mark.parametrize(("lora", "adapters"), [(None, None), (LoraSpec(), 39_976_960)])
def test_frozen_weights_count_less(rows, lora, adapters):
    """With the operations of full training a LoRA run would claim half as much again of the peak."""
    step = Meter.of(Ranks(0, 1, CPU), rows, CONFIG, "bfloat16", lora).start([np.array([3])])
    tokens, supervised = int(rows.lengths[3]), rows.supervised(np.array([3]))
    wanted = train_flops(ModelShape.from_config(CONFIG), tokens, supervised, tokens**2, adapters)
    assert step.finish(step.slots(0.0)).flops == wanted


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_the_sum_over_ranks_leaves_the_largest_of_each(world_size):
    values = [(rank / 7, (3 * rank) % world_size - 2.5) for rank in range(world_size)]
    parts = [slots(own, rank, world_size) for rank, own in enumerate(values)]
    sums = [sum(column) for column in zip(*parts, strict=True)]
    assert len(sums) == 2 * world_size
    assert maxima(sums, 2) == [max(column) for column in zip(*values, strict=True)]


def test_a_step_is_measured_over_all_ranks(rows, monkeypatch):
    monkeypatch.setattr(meters.time, "perf_counter", lambda: 10.0)
    batch = [np.array([3, 0]), np.array([7]), np.array([5, 29]), np.array([1])]
    steps = [Meter.of(Ranks(rank, 3, CPU), rows, CONFIG, "bfloat16").start(batch) for rank in range(3)]
    sums = np.sum([step.slots(data_s) for step, data_s in zip(steps, (0.5, 2.0, 1.0), strict=True)], axis=0).tolist()
    monkeypatch.setattr(meters.time, "perf_counter", lambda: 14.0)
    measured = steps[0].finish(sums)
    chosen = np.concatenate(batch)
    lengths = [int(rows.lengths[row]) for row in chosen]
    assert measured.tokens == sum(lengths) and measured.supervised_tokens == rows.supervised(chosen)
    squares = sum(length**2 for length in lengths)
    shape = ModelShape.from_config(CONFIG)
    assert measured.flops == train_flops(shape, measured.tokens, measured.supervised_tokens, squares)
    assert (measured.data_s, measured.data_rank) == (2.0, 1)
    assert measured.memory_gb == pytest.approx(peak_memory_bytes(CPU) / 1e9, rel=0.1)
    assert measured.mfu is None, "what a CPU can do is not known"
    assert measured.elapsed_s == 4.0


def test_the_share_of_the_peak_of_all_gpus():
    measured = Measured(2.0, 4096, 1024, 6e14, 4 * 312e12, 0.0123456, 5, 61.23456)
    assert measured.mfu == pytest.approx(6e14 / 2 / (4 * 312e12))
    assert measured.values() == {
        "tokens": 4096,
        "supervised_tokens": 1024,
        "tokens_per_s": 2048.0,
        "supervised_tokens_per_s": 512.0,
        "mfu": 0.2404,
        "memory_gb": 61.235,
        "data_s": 0.0123,
        "data_rank": 5,
    }


@pytest.mark.parametrize(("flops", "peak"), [(None, 312e12), (6e14, None), (None, None)])
def test_no_utilisation_where_model_or_machine_is_unknown(flops, peak):
    assert Measured(2.0, 1, 1, flops, peak, 0.0, 0, 0.0).values()["mfu"] is None


@pytest.mark.parametrize(
    ("device", "dtype", "peak"),
    [("cuda", "bfloat16", 312e12), ("cuda", "float32", None), ("cpu", "bfloat16", None)],
)
def test_a_peak_is_that_of_the_type_that_is_computed_in(rows, monkeypatch, device, dtype, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    assert Meter.of(Ranks(0, 8, torch.device(device)), rows, CONFIG, dtype).peak_flops == peak


def test_a_model_of_unknown_shape_is_measured_without_its_flops(rows):
    meter = Meter.of(Ranks(0, 1, CPU), rows, {"model_type": "mamba"}, "bfloat16")
    step = meter.start([np.array([0])])
    assert step.finish(step.slots(0.0)).flops is None
