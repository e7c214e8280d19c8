"""Activations and loss against what a real model keeps, counted tensor by tensor; larger ones by hand in benchmarks."""

from __future__ import annotations

import pytest

from hpcsft.estimate.activations import FEWEST_POSITIONS, LOGITS_PER_CHUNK, activations, layer_bytes
from hpcsft.spec.model import LoraSpec
from tests.estimate.models import BAICHUAN2_7B, LLAMA_7B, shape_of

POSITIONS = 512


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [None, LoraSpec(), LoraSpec(rank=64, dropout=0.1)])
def test_a_real_model_keeps_as_much(dtype, checkpointing, lora):
    """Kept bytes, and the peak of forward and backward."""
    import torch
    from transformers import LlamaConfig

    from tests.benchmarks.train_memory import measure, shape_of

    config = LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4
    )
    kind = getattr(torch, dtype)
    found = measure(config, kind, checkpointing, POSITIONS, lora)
    told = activations(shape_of(config), POSITIONS, kind.itemsize, checkpointing, lora=lora)
    assert told.kept == pytest.approx(found.kept, rel=0.1)
    assert told.peak == pytest.approx(found.peak, rel=0.15)


def test_the_sizes_of_chunks_are_those_of_the_loss():
    from hpcsft.models import cross_entropy

    assert (cross_entropy.LOGITS_PER_CHUNK, cross_entropy.FEWEST_POSITIONS) == (LOGITS_PER_CHUNK, FEWEST_POSITIONS)


def test_llama_7b_by_hand():
    """16 H + 4 Q + 4 K + 8 I bytes of a position and layer in bfloat16, and 4 for each head."""
    shape = shape_of(LLAMA_7B)
    assert layer_bytes(shape, 2) == 16 * 4096 + 8 * 4096 + 8 * 11008 + 4 * 32
    whole, inputs = (activations(shape, 2048, 2, checkpointing) for checkpointing in (False, True))
    assert whole.kept == 2048 * (32 * layer_bytes(shape, 2) + 2 * 4096)
    assert inputs.kept == 2048 * 33 * 2 * 4096
    assert inputs.activations < whole.activations / 8


@pytest.mark.parametrize(("config", "gigabytes"), [(LLAMA_7B, 0.8), (BAICHUAN2_7B, 3.1)])
def test_what_full_logits_would_take(config, gigabytes):
    """Of a micro batch of 2 x 1,024 positions; chunks take a small part of it, whatever the micro batch."""
    found = activations(shape_of(config), 2048, 2, True)
    assert round(found.full_logits / 1e9, 1) == gigabytes
    assert found.logits < 0.3e9
    assert activations(shape_of(config), 4 * 2048, 2, True).logits == found.logits


def test_a_normalised_head_has_a_second_matrix():
    plain = shape_of({**BAICHUAN2_7B, "model_type": "llama"})
    extra = activations(shape_of(BAICHUAN2_7B), 2048, 2, True).loss - activations(plain, 2048, 2, True).loss
    assert extra == 2 * 2 * plain.head_parameters


def test_a_frozen_head_has_no_gradient():
    """Of a large vocabulary it would take as much as the head: 1 GB for Baichuan2's."""
    shape = shape_of(BAICHUAN2_7B)
    whole, adapted = (activations(shape, 2048, 2, True, lora=lora) for lora in (None, LoraSpec()))
    assert whole.loss - adapted.loss == 2 * 2 * shape.head_parameters
    assert adapted.working < 2 * shape.head_parameters <= whole.working


def test_fewer_supervised_positions_need_less_for_the_loss_only():
    shape = shape_of(LLAMA_7B)
    every, few = activations(shape, 2048, 2, True), activations(shape, 2048, 2, True, supervised=100)
    assert few.loss < every.loss
    assert few.activations == every.activations
