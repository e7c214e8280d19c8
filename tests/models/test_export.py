"""Guards that an exported model is the trained one, loads anywhere, and exists only once it is whole."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from hpcsft.errors import Fenced
from hpcsft.models.export import SpecialIds, gather_state, publish_folder, write_model
from hpcsft.models.load import load_model
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.spec.model import ModelSpec
from tests.conftest import build_tiny_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_model, conversations) -> dict[bool, Path]:
    """By whether embeddings and head are tied."""
    untied = build_tiny_model(tmp_path_factory.mktemp("untied"), conversations, tie_word_embeddings=False)
    return {True: tiny_model, False: untied}


def trained(folder: Path, dtype: str = "float32") -> PreTrainedModel:
    """The model after something like a step: every parameter differs from what is in `folder`."""
    model = load_model(str(folder), dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return model


def export(model: PreTrainedModel, state: dict[str, Any], tokenizer: Any, folder: Path, *attempt: Any) -> None:
    """Write and publish, as after an epoch."""

    def write(partial: Path) -> None:
        write_model(model, state, ModelSpec(path="base"), SpecialIds(0, {1}), partial)
        tokenizer.save_pretrained(partial)

    publish_folder(folder, write, *attempt)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_written_is_what_was_trained(folders, tmp_path, tied, dtype):
    model = trained(folders[tied], dtype)
    target = tmp_path / "models" / "epoch-1"
    export(model, gather_state(model, 0, keep=True), load_tokenizer(str(folders[tied])), target)
    loaded = AutoModelForCausalLM.from_pretrained(target)
    assert type(loaded) is type(model) and loaded.dtype == getattr(torch, dtype)
    expected, found = model.state_dict(), loaded.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) is tied
    assert ("lm_head.weight" in load_file(target / "model.safetensors")) is not tied
    ids = torch.arange(12)[None]
    assert torch.equal(loaded(ids).logits, model.eval()(ids).logits)
    text = "What is 1 + 1? 一加一？"
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (target, folders[tied])]
    assert tokenizers[0](text)["input_ids"] == tokenizers[1](text)["input_ids"]
    assert tokenizers[0].eos_token_id == tokenizers[1].eos_token_id
    assert [path.name for path in target.parent.iterdir()] == ["epoch-1"]


def test_ties_are_kept_once_and_what_is_on_the_cpu_is_not_copied(folders):
    model = trained(folders[True])
    state = gather_state(model, 0, keep=True)
    assert state["lm_head.weight"] is state["model.embed_tokens.weight"]
    assert state["model.norm.weight"].data_ptr() == model.model.norm.weight.data_ptr()
    assert not any(tensor.requires_grad for tensor in state.values())
    assert gather_state(model, 0, keep=False) == {}


def test_the_gathered_state_is_written_not_what_the_module_holds(folders, tmp_path):
    """Under ZeRO 3 the module itself holds empty tensors."""
    model = trained(folders[True])
    state = gather_state(copy.deepcopy(model), 0, keep=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    expected = dict(state)
    export(model, state, load_tokenizer(str(folders[True])), tmp_path / "epoch-1")
    found = load_model(str(tmp_path / "epoch-1"), "float32").state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) and tensor.any() for name, tensor in expected.items())


class FullDisk:
    """A tokenizer that fails to be written, as on a full disk: the model's own files are there by then."""

    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{")
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("exists", [False, True])
def test_half_an_export_is_none(folders, tmp_path, exists):
    model, tokenizer = trained(folders[True]), load_tokenizer(str(folders[True]))
    target = tmp_path / "models" / "epoch-1"
    if exists:
        shutil.copytree(folders[True], target)
    state: dict[str, Any] = gather_state(model, 0, keep=True)
    with pytest.raises(OSError, match="No space left"):
        export(model, state, FullDisk(), target)
    assert target.exists() is exists
    export(model, state, tokenizer, target)  # one that is there is whole, and may be in use: it stays
    expected = torch.ones(32) if exists else model.model.norm.weight
    assert torch.equal(load_model(str(target), "float32").model.norm.weight, expected)
    assert load_tokenizer(str(target)).get_vocab() == tokenizer.get_vocab()
    assert [path.name for path in target.parent.iterdir()] == ["epoch-1"]


def test_an_attempt_that_was_taken_over_publishes_no_model_and_leaves_no_trace_for_long(folders, tmp_path):
    model, tokenizer = trained(folders[True]), load_tokenizer(str(folders[True]))
    target = tmp_path / "models" / "epoch-1"
    state = gather_state(model, 0, keep=True)

    def taken_over() -> None:
        raise Fenced("44_1 has taken over")

    with pytest.raises(Fenced):
        export(model, state, tokenizer, target, "44_0", taken_over)
    assert [path.name for path in target.parent.iterdir()] == [".epoch-1.44_0.partial"]
    export(model, state, tokenizer, target, "44_1")
    assert [path.name for path in target.parent.iterdir()] == ["epoch-1"]


ROTARY = {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 128}  # fmt: skip


@pytest.mark.parametrize("rotary", [ROTARY, {"rope_theta": 1e5, "rope_type": "default"}], ids=["llama3", "default"])
def test_transformers_4_finds_rotary_positions_and_type(conversations, tmp_path, rotary):
    """It would take base 10,000 without scaling, and float32: other logits, and no word of it."""
    folder = build_tiny_model(tmp_path / "model", conversations, rope_parameters=rotary)
    model = load_model(str(folder))
    export(model, gather_state(model, 0, keep=True), load_tokenizer(str(folder)), tmp_path / "epoch-1")
    config = json.loads((tmp_path / "epoch-1" / "config.json").read_text())
    assert (config["rope_theta"], config["torch_dtype"]) == (rotary["rope_theta"], "bfloat16")
    scaling = {name: value for name, value in rotary.items() if name != "rope_theta"}
    assert config.get("rope_scaling") == (scaling if rotary is ROTARY else None)
    again = load_model(str(tmp_path / "epoch-1"))
    assert {**rotary, **again.config.rope_parameters} == rotary
    ids = torch.arange(200)[None]
    assert torch.equal(again(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    "stated",
    [
        {"temperature": 0.9, "top_p": 0.6, "bos_token_id": 1, "eos_token_id": 2},
        {"num_beams": 1, "length_penalty": 2.0, "early_stopping": True, "eos_token_id": 7},
    ],
)
def test_what_a_generation_config_says_never_stops_an_export(folders, tmp_path, stated):
    """Early folders of Llama 2 set temperature without do_sample, which transformers reads and does not write."""
    folder = shutil.copytree(folders[True], tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps(stated))
    model = load_model(str(folder), "float32")
    export(model, gather_state(model, 0, keep=True), load_tokenizer(str(folder)), tmp_path / "epoch-1")
    written = json.loads((tmp_path / "epoch-1" / "generation_config.json").read_text())
    assert (written["bos_token_id"], written["eos_token_id"]) == (0, 1)  # as the tokenizer has them
    assert not {"temperature", "top_p", "length_penalty"} & written.keys()
