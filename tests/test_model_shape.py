"""A config.json tells how many parameters a model has, to the last one, or nothing at all."""

from __future__ import annotations

import pytest

from hpcsft.model_shape import FAMILIES, ModelShape, unsupported
from tests.estimate.models import (
    BAICHUAN2_7B,
    BAICHUAN2_7B_PARAMETERS,
    LLAMA_7B,
    LLAMA_7B_PARAMETERS,
    shape_of,
)

SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.mark.parametrize(
    ("config", "parameters"), [(LLAMA_7B, LLAMA_7B_PARAMETERS), (BAICHUAN2_7B, BAICHUAN2_7B_PARAMETERS)]
)
def test_published_models_have_their_published_size(config, parameters):
    assert shape_of(config).num_parameters == parameters


@pytest.mark.parametrize("model_type", sorted(FAMILIES.keys() - {"baichuan"}))
@pytest.mark.parametrize("setting", [{}, {"attention_bias": True}, {"mlp_bias": True}, {"tie_word_embeddings": True}])
def test_every_family_is_counted_as_transformers_builds_it(model_type, setting):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(model_type, **SMALL, **setting)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape_of(config.to_dict()).num_parameters == sum(weight.numel() for weight in model.parameters())


def test_heads_are_grouped_only_where_the_config_says_so():
    assert shape_of(LLAMA_7B).kv_size == shape_of(LLAMA_7B).query_size == 4096
    grouped = shape_of({**LLAMA_7B, "num_key_value_heads": 8})
    assert (grouped.kv_size, grouped.query_size) == (1024, 4096)


def test_only_baichuan2_has_a_normalised_head():
    assert shape_of(BAICHUAN2_7B).normalized_head
    first = {**BAICHUAN2_7B, "vocab_size": 64000}
    assert not shape_of(first).normalized_head
    assert shape_of({**first, "z_loss_weight": 0}).normalized_head
    assert shape_of({**first, "normalized_head": True}).normalized_head
    assert not shape_of({**BAICHUAN2_7B, "normalized_head": False}).normalized_head
    assert not shape_of({**LLAMA_7B, "vocab_size": 125_696, "z_loss_weight": 0}).normalized_head


def test_baichuan_13b_is_not_supported_and_its_7b_is():
    published = {"model_max_length": 4096, "max_position_embeddings": 4096}
    message, hint = unsupported({**BAICHUAN2_7B, "hidden_size": 5120, "model_max_length": 4096})
    assert "Baichuan 13B" in message and "ALiBi" in message and "Baichuan2-7B-Base" in hint
    assert unsupported({**BAICHUAN2_7B, "model_max_length": 4096})
    assert unsupported({**BAICHUAN2_7B, **published, "hidden_size": 5120})
    for config in ({**BAICHUAN2_7B, **published}, {**LLAMA_7B, "hidden_size": 5120}, {"model_type": ["baichuan"]}, {}):
        assert unsupported(config) is None


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "gpt2"},
        {"model_type": None},
        {"model_type": ["llama"]},
        {"hidden_size": None},
        {"num_hidden_layers": "32"},
        {"num_attention_heads": 0},
        {"num_key_value_heads": -1},
        {"vocab_size": True},
        {"intermediate_size": [1, 2]},
    ],
)
def test_of_what_is_not_known_nothing_is_guessed(change):
    assert ModelShape.from_config({**LLAMA_7B, **change}) is None
    assert ModelShape.from_config({}) is None
