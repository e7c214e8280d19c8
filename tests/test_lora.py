"""Adapters as the login node counts and checks them, against those that peft makes."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from hpcsft.errors import InputError, SpecError
from hpcsft.lora import adapter_parameters, check_lora
from hpcsft.model_shape import ModelShape
from hpcsft.spec import parse_spec
from hpcsft.spec.model import LoraSpec
from tests.estimate.models import BAICHUAN2_7B, LLAMA_7B, shape_of

SEVEN = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"


def test_adapters_of_llama_7b_by_hand() -> None:
    """Published as 39,976,960 for rank 16 on all linear layers: 32 x 16 x (4 x 2 x 4096 + 3 x (4096 + 11008))."""
    assert adapter_parameters(shape_of(LLAMA_7B), LoraSpec()) == 39_976_960
    assert adapter_parameters(shape_of(BAICHUAN2_7B), LoraSpec()) == 39_976_960
    assert adapter_parameters(shape_of(LLAMA_7B), LoraSpec(rank=8, target_modules=["q_proj", "v_proj"])) == 4_194_304


@pytest.mark.parametrize(
    "wanted", ["all-linear", ["q_proj", "v_proj"], ["self_attn.k_proj", "layers.1.mlp.down_proj"], ["1.mlp.up_proj"]]
)
def test_as_many_are_counted_as_peft_makes(wanted: str | list[str]) -> None:
    """Grouped heads and a head_dim of its own; a name is the end of a name."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from hpcsft.models.lora import add_adapters

    config = Qwen3Config(
        vocab_size=50,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=None,
    )
    model, lora = Qwen3ForCausalLM(config), LoraSpec(rank=3, target_modules=wanted)
    add_adapters(model, lora)
    assert adapter_parameters(shape_of(config.to_dict()), lora) == model.num_parameters(only_trainable=True)


def checked(config: dict[str, Any], **lora: Any) -> None:
    check_lora(LoraSpec(**lora), config.get("model_type"), ModelShape.from_config(config))


def test_what_training_would_not_find_is_told_at_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    checked(LLAMA_7B, target_modules=["q_proj", "mlp.up_proj"])
    with pytest.raises(InputError, match=r"model\.lora\.target_modules: no linear layer with the name W_pack") as error:
        checked(BAICHUAN2_7B, target_modules=["W_pack", "o_proj"])
    assert error.value.hint == f"there are {SEVEN}"
    checked({**LLAMA_7B, "model_type": "phi3"}, target_modules=["qkv_proj"])
    checked({"model_type": "mamba"}, target_modules=["in_proj"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"model\.lora: not installed: peft") as error:
        checked(LLAMA_7B)
    assert "pip install peft" in str(error.value.hint)


@pytest.mark.parametrize(
    ("lora", "field"),
    [
        ({"rank": 0}, "model.lora.rank"),
        ({"dropout": 1.0}, "model.lora.dropout"),
        ({"target_modules": []}, "model.lora.target_modules"),
        ({"target_modules": "all-liner"}, "model.lora.target_modules"),
        ({"target_modules": ["q proj"]}, "model.lora.target_modules[0]"),
        ({"export": "both"}, "model.lora.export"),
        ({"r": 8}, "model.lora.r"),
    ],
)
def test_a_wrong_field_is_named(lora: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as error:
        parse_spec({"model": {"path": "m", "lora": lora}, "data": {"train": ["d.jsonl"]}})
    assert field in [problem.path for problem in error.value.problems]
