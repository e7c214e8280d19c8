"""Guards the one way in to models: what cannot be used is refused in one line that names the folder, nothing is fetched
from the network or run from a model's folder, and what is loaded is what was asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from hpcsft.data.templates import make_template
from hpcsft.errors import InputError, StageError
from hpcsft.models.load import load_model, pick_device
from hpcsft.models.tokenizer import load_tokenizer


@pytest.fixture
def folder(tmp_path, tiny_model) -> Path:
    """A copy of the tiny model, to be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def test_the_tokenizer_knows_its_special_tokens(tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    added = tokenizer.get_added_vocab()
    assert tokenizer.is_fast
    assert [tokenizer.decode([token]) for token in (tokenizer.bos_token_id, tokenizer.eos_token_id)] == ["<s>", "</s>"]
    assert {"<|im_start|>", "<|im_end|>"} <= added.keys()


def test_tokens_that_are_only_text_are_not_special(folder):
    """A tokenizer that can spell <|im_start|> but has no such token cannot do ChatML."""
    tokenizer = load_tokenizer(str(folder))
    document = json.loads((folder / "tokenizer.json").read_text())
    document["added_tokens"] = [token for token in document["added_tokens"] if "im_" not in token["content"]]
    (folder / "tokenizer.json").write_text(json.dumps(document))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "extra_special_tokens": []}))
    plain = load_tokenizer(str(folder))
    assert "<|im_start|>" not in plain.get_added_vocab()
    with pytest.raises(StageError, match="chatml needs the tokens"):
        make_template("chatml", plain)
    assert plain.eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_model_is_loaded_as_asked(tiny_model, dtype, attention):
    model = load_model(str(tiny_model), dtype, attention)
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    assert model.config._attn_implementation == attention
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    stored = load_file(tiny_model / "model.safetensors")
    for name, tensor in stored.items():
        assert torch.equal(model.state_dict()[name], tensor.to(getattr(torch, dtype)))


@pytest.fixture
def tried(monkeypatch) -> list[Any]:
    """Addresses that somebody tried to reach. HF_HUB_OFFLINE, which the tests set, is off."""
    addresses: list[Any] = []

    def refuse(*address: Any, **_: Any) -> None:
        addresses.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return addresses


def test_loading_needs_no_network(tiny_model, tried):
    load_tokenizer(str(tiny_model))
    load_model(str(tiny_model))
    assert not tried


def test_a_folder_that_is_not_there(tmp_path, tried):
    for load in (load_model, load_tokenizer):
        with pytest.raises(InputError, match=r"/nowhere: .*(does not load: \S|no such folder)"):
            load(str(tmp_path / "nowhere"))
    assert not tried


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
@pytest.mark.parametrize("path", ["/nowhere/at/all", "no/such-model"])
def test_a_folder_that_is_not_there_is_called_so(tried, load, path):
    with pytest.raises(InputError, match=rf"^{path}: .*no such folder"):
        load(path)
    assert not tried


def test_a_folder_without_a_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match=r"copy: the tokenizer does not load: \S"):
        load_tokenizer(str(folder))


def test_a_tokenizer_that_is_not_fast(folder):
    """ByT5 has no fast variant: its tokens cannot be told from text that spells them."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    with pytest.raises(InputError, match="copy: no fast tokenizer"):
        load_tokenizer(str(folder))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.safetensors", None, "no file named model.safetensors"),
        ("config.json", "{", "not a valid JSON file"),
        ("config.json", '{"model_type": "nonesuch"}', "nonesuch"),
    ],
)
def test_a_damaged_folder(folder, name, content, reason):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(InputError, match=rf"copy: the model does not load: .*{reason}"):
        load_model(str(folder))


def test_a_tokenizer_of_another_kind(folder):
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(InputError, match="copy: the tokenizer does not load"):
        load_tokenizer(str(folder))


def test_a_damaged_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(InputError, match=r"copy: the tokenizer does not load: Expecting value"):
        load_tokenizer(str(folder))


def test_no_code_of_a_tokenizer_folder_is_run(folder):
    (folder / "custom.py").write_text(f"open({str(folder / 'was-run')!r}, 'w')\nclass Custom: pass\n")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.update(auto_map={"AutoTokenizer": [None, "custom.Custom"]}, tokenizer_class="Custom")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with contextlib.suppress(InputError):  # it may load what needs no code
        load_tokenizer(str(folder))
    assert not (folder / "was-run").exists()


def test_no_code_of_a_model_folder_is_run(folder):
    (folder / "model.py").write_text("raise SystemExit('code of the folder was run')")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "model.Config", "AutoModelForCausalLM": "model.Model"}
    config["model_type"] = "homegrown"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"copy: the model does not load"):
        load_model(str(folder))


def test_weights_cut_off(folder):
    os.truncate(folder / "model.safetensors", 50_000)
    with pytest.raises(InputError, match="copy: the model does not load"):
        load_model(str(folder))


def test_weights_that_are_missing(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"copy: .*model\.layers\.1\.mlp\.down_proj\.weight"):
        load_model(str(folder))


def test_weights_of_another_shape(folder):
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name] = tensors[name][:, 1:].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="copy: the model does not load"):
        load_model(str(folder))


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash_attn is installed here")
def test_attention_that_is_not_installed(tiny_model):
    with pytest.raises(InputError, match=r"the model does not load: FlashAttention2"):
        load_model(str(tiny_model), "bfloat16", "flash_attention_2")


@pytest.mark.parametrize("has_gpu", [False, True])
def test_models_compute_where_there_is_a_gpu(monkeypatch, has_gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert pick_device().type == ("cuda" if has_gpu else "cpu")
