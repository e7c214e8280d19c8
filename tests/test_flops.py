"""Operations of training against those that torch counts when it runs a model."""

from __future__ import annotations

import pytest

from hpcsft.flops import forward_flops, train_flops
from hpcsft.lora import adapter_parameters
from hpcsft.spec.model import LoraSpec
from tests.estimate.models import BAICHUAN2_7B, LLAMA_7B, LLAMA_7B_PARAMETERS, shape_of


@pytest.mark.parametrize("lora", [None, LoraSpec(rank=4)])
def test_matrices_are_counted_as_torch_counts_them(lora):
    """One row with loss everywhere. torch counts eager attention's whole square, which is twice what is needed.

    With LoRA nothing below the first layer learns: its queries, keys and values need no gradient of their input.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaConfig, LlamaForCausalLM

    from hpcsft.models.lora import add_adapters

    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation="eager",
    )
    model, length = LlamaForCausalLM(config), 24
    if lora:
        add_adapters(model, lora)
    ids = torch.arange(length)[None]
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids).logits.sum().backward()
    shape = shape_of(config.to_dict())
    adapters = adapter_parameters(shape, lora) if lora else None
    attention = train_flops(shape, 0, 0, length**2)
    whole = train_flops(shape, length, length, length**2, adapters) + attention
    first = 2 * length * 64 * ((64 + 32 + 32) + 3 * lora.rank) if lora else 0
    assert counter.get_total_flops() == whole - first


def test_the_rule_of_thumb_holds():
    """6 operations per parameter and token, but for the embedding, which is looked up (Kaplan et al. 2020)."""
    shape = shape_of(LLAMA_7B)
    without_attention = train_flops(shape, 1000, 1000, 0)
    assert without_attention == pytest.approx(6 * 1000 * (LLAMA_7B_PARAMETERS - 32000 * 4096), rel=1e-4)


def test_frozen_matrices_need_two_thirds():
    """4 operations per parameter and token, and 6 per parameter of an adapter; a validation needs 2 of each."""
    shape = shape_of(LLAMA_7B)
    found = train_flops(shape, 1000, 1000, 0, adapters=39_976_960)
    assert found == pytest.approx(1000 * (4 * (LLAMA_7B_PARAMETERS - 32000 * 4096) + 6 * 39_976_960), rel=1e-4)
    assert forward_flops(shape, 1000, 1000, 7) == train_flops(shape, 1000, 1000, 7) / 3
    more = forward_flops(shape, 1000, 1000, 7, 39_976_960) - forward_flops(shape, 1000, 1000, 7)
    assert more == 2 * 1000 * 39_976_960


def test_rows_attend_to_themselves_only():
    shape = shape_of(LLAMA_7B)
    one, four = train_flops(shape, 4096, 0, 4096**2), train_flops(shape, 4096, 0, 4 * 1024**2)
    base = train_flops(shape, 4096, 0, 0)
    assert one - base == 4 * (four - base) == 6 * 32 * 4096 * 4096**2


def test_the_head_counts_at_supervised_positions_only():
    shape = shape_of(BAICHUAN2_7B)
    assert train_flops(shape, 1000, 500, 0) - train_flops(shape, 1000, 0, 0) == 6 * 125_696 * 4096 * 500
