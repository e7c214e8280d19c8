"""Guards what a config.json of Baichuan is taken for, by transformers' Auto classes and by processes without torch; the
13B, which has the same type and class, is refused.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from hpcsft.errors import InputError
from hpcsft.models.baichuan.configuration import BaichuanConfig
from hpcsft.models.baichuan.modeling import BaichuanForCausalLM, BaichuanModel
from hpcsft.models.heads import NormHead
from hpcsft.models.load import load_model
from tests.models.baichuan_reference import BAICHUAN1, CONFIG, random_tensors, write_folder


@pytest.fixture(scope="module", params=[CONFIG, BAICHUAN1], ids=["baichuan2", "baichuan1"])
def config(request) -> dict[str, Any]:
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory, config) -> Path:
    return write_folder(tmp_path_factory.mktemp("published") / "model", random_tensors(), config)


def test_auto_classes_know_it(folder, config):
    assert type(AutoConfig.from_pretrained(folder)) is BaichuanConfig
    assert type(AutoModel.from_pretrained(folder)) is BaichuanModel
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is BaichuanForCausalLM
    assert isinstance(model.lm_head, NormHead) == (config is CONFIG) == model.config.normalized_head
    assert model.is_backend_compatible() and model._supports_flash_attn and model._supports_flex_attn


@pytest.mark.parametrize(
    ("changes", "normalized"),
    [
        ({"vocab_size": 125_696}, True),
        ({"vocab_size": 64_000}, False),
        ({"vocab_size": 70_000, "z_loss_weight": 0}, True),
        ({"vocab_size": 125_696, "normalized_head": False}, False),
        ({"vocab_size": 64_000, "normalized_head": True}, True),
        ({}, True),
    ],
)
def test_the_head_is_told_from_the_config_and_stated_from_then_on(changes, normalized):
    config = BaichuanConfig(**changes)
    assert config.normalized_head is normalized
    assert config.to_diff_dict()["normalized_head"] is normalized
    assert (config.max_position_embeddings, config.pad_token_id) == (4096, 0)


@pytest.mark.parametrize("changes", [{"hidden_size": 5120}, {"max_position_embeddings": None}])
def test_the_13b_is_refused_by_name(tmp_path, changes):
    config = {name: value for name, value in {**CONFIG, **changes}.items() if value is not None}
    folder = write_folder(tmp_path / "model", random_tensors(), config)
    with pytest.raises(InputError, match=r"does not load: Baichuan 13B is not supported: .*ALiBi.*; take a 7B"):
        load_model(str(folder))


def test_the_config_needs_no_torch(folder, config):
    code = f"""
import sys
from hpcsft.models.tokenizer import without_torch
without_torch()
import hpcsft.models.baichuan
from transformers import AutoConfig
print(AutoConfig.from_pretrained({str(folder)!r}).normalized_head, sys.modules["torch"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [str(config is CONFIG), "None"]
