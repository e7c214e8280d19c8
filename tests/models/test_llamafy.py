"""Guards that a model written as plain Llama gives the same logits to a process that knows nothing of hpcsft."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from hpcsft.errors import InputError
from hpcsft.models.llamafy import llamafied
from hpcsft.models.load import load_model
from tests.models.baichuan_reference import BAICHUAN1, CONFIG, Tensors, logits_of, random_tensors, write_folder

IDS = [5, 17, 200, 3, 99, 42, 8, 8, 150]
ALONE = """
import sys, torch
from transformers import AutoModelForCausalLM
model, found = AutoModelForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)
assert type(model).__name__ == "LlamaForCausalLM" and not any(found.values()), found
assert not any(name.startswith("hpcsft") for name in sys.modules)
print(model(torch.tensor([eval(sys.argv[2])])).logits[0].tolist())
"""


def written(folder: Path, target: Path, dtype: str = "float32") -> Path:
    """The model in `folder` as a Llama in `target`."""
    model = load_model(str(folder), dtype, training=True)
    config, state = llamafied(model.config, model.state_dict())
    with torch.device("meta"):
        empty = LlamaForCausalLM._from_config(config, dtype=model.dtype)
    empty.save_pretrained(target, state_dict=state)
    return target


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return random_tensors()


@pytest.mark.parametrize("config", [CONFIG, BAICHUAN1], ids=["baichuan2", "baichuan1"])
def test_another_process_finds_a_llama_with_the_same_logits(tmp_path, tensors, config):
    target = written(write_folder(tmp_path / "model", tensors, config), tmp_path / "llama")
    command = [sys.executable, "-P", "-c", ALONE, str(target), str(IDS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    found = torch.tensor(json.loads(done.stdout))
    torch.testing.assert_close(found, logits_of(tensors, IDS, config), rtol=1e-5, atol=1e-5)


def test_the_config_is_one_that_llamas_have(tmp_path, tensors):
    """What vLLM and llama.cpp read is there, and nothing that leads to Baichuan's code."""
    target = written(write_folder(tmp_path / "model", tensors), tmp_path / "llama", "bfloat16")
    found = json.loads((target / "config.json").read_text())
    expected = {
        **{name: value for name, value in CONFIG.items() if name in LlamaConfig().to_dict()},
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "num_key_value_heads": 4,
        "head_dim": 8,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    }
    del expected["transformers_version"]
    assert found == {**found, **expected}
    assert not found.keys() & {"auto_map", "tokenizer_class", "normalized_head", "z_loss_weight", "model_max_length"}


def test_only_the_head_is_new_and_its_rows_have_length_one(tmp_path, tensors):
    stored = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    model = load_model(str(write_folder(tmp_path / "model", stored)), "bfloat16", training=True)
    state = model.state_dict()
    before = state["lm_head.weight"].clone()
    _, found = llamafied(model.config, state)
    assert [name for name in found if found[name] is not state[name]] == ["lm_head.weight"]
    assert found.keys() == state.keys() and torch.equal(state["lm_head.weight"], before)
    exact = before.double() / before.double().norm(dim=1, keepdim=True)
    assert torch.equal(found["lm_head.weight"], exact.to(torch.bfloat16))


def test_a_llama_is_written_as_it_is(tiny_model):
    model = load_model(str(tiny_model))
    state: dict[str, Any] = model.state_dict()
    config, found = llamafied(model.config, state)
    assert config is model.config and found is state


@pytest.mark.parametrize("model_type", ["mistral", "qwen2"])
def test_other_types_are_refused(model_type):
    with pytest.raises(InputError, match=f"a model of type {model_type} cannot be written as a Llama") as refused:
        llamafied(AutoConfig.for_model(model_type), {})
    assert refused.value.hint == 'types that can: baichuan, llama; "native" writes any model as what it is'


def test_tied_embeddings_are_tied_only_where_head_and_embedding_stay_one(tmp_path, tensors):
    for config in (CONFIG, BAICHUAN1):
        tied = {**config, "tie_word_embeddings": True}
        folder = tmp_path / str("z_loss_weight" in config)
        mine = {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}
        target = written(write_folder(folder / "model", mine, tied), folder / "llama")
        assert ("lm_head.weight" in load_file(target / "model.safetensors")) == (config is CONFIG)
        assert AutoConfig.from_pretrained(target).tie_word_embeddings == (config is BAICHUAN1)
        both = mine | {"lm_head.weight": mine["model.embed_tokens.weight"]}
        logits = AutoModelForCausalLM.from_pretrained(target)(torch.tensor([IDS])).logits[0]
        torch.testing.assert_close(logits, logits_of(both, IDS, config), rtol=1e-5, atol=1e-5)
