"""Guards the one way in to models: what cannot be used is refused in one line that names the folder, nothing is fetched
from the network or run from a model's folder, and what is loaded is what was asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from hpcsft.data.batches import Batch
from hpcsft.data.templates import make_template
from hpcsft.errors import InputError, StageError
from hpcsft.model_folder.check import check_model
from hpcsft.models.load import load_for_training, load_model, pick_device
from hpcsft.models.loss import supervised_loss
from hpcsft.models.tokenizer import load_tokenizer
from tests.models.made_gguf import write_gguf


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
    ("content", "reason"), [("{", "not a valid JSON file"), ('{"model_type": "nonesuch"}', "nonesuch")]
)
def test_a_damaged_config(folder, content, reason):
    (folder / "config.json").write_text(content)
    with pytest.raises(InputError, match=rf"copy: the model does not load: .*{reason}"):
        load_model(str(folder))


def test_a_tokenizer_of_another_kind(folder):
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(InputError, match="copy: the tokenizer does not load"):
        load_tokenizer(str(folder))


def test_a_damaged_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(InputError, match=r"copy: the tokenizer does not load: EOF while parsing a value"):
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


def remove(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_off(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 50_000)


def lose_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def name_an_absent_tensor(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    places = {"a": "model-00001-of-00001.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def make_unsafe(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.nn.Linear(1, 1)}, folder / "pytorch_model.bin")


def forget_eos(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (remove, "copy: no weights inside"),
        (cut_off, r"model\.safetensors: not a whole safetensors file"),
        (lose_a_shard, r"copy: 1 file \(model-00002-of-00002\.safetensors\) of weights missing"),
        (name_an_absent_tensor, r"names 1 weight \(a\) that model-00001-of-00001\.safetensors does not hold"),
        (make_unsafe, r"pytorch_model\.bin: refused: it asks for torch\.nn\.modules\.linear\.Linear"),
        (forget_eos, "copy: the tokenizer has no eos token, which ends an answer"),
    ],
)
def test_loading_says_what_the_login_node_says(folder, damage, text):
    """Jobs run by hand have not been through submit."""
    damage(folder)
    with pytest.raises(InputError, match=text) as on_login_node:
        check_model(str(folder), "model.path")
    with pytest.raises(InputError, match=text) as caught:
        (load_tokenizer if damage is forget_eos else load_model)(str(folder))
    assert on_login_node.value.message == f"model.path: {caught.value.message}"
    assert on_login_node.value.hint == caught.value.hint


def change(folder: Path, name: str, weight: Callable[[torch.Tensor | None], torch.Tensor | None]) -> None:
    """Replace a weight of the model in the folder; None is no weight."""
    tensors = load_file(folder / "model.safetensors")
    changed = weight(tensors.pop(name, None))
    tensors |= {} if changed is None else {name: changed.contiguous()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "weight", "text"),
    [
        ("model.layers.1.mlp.down_proj.weight", lambda _: None, "1 weights are missing, the first: "),
        ("model.layers.1.mlp.down_proj.weight", lambda old: old[:, 1:], "1 weights have other sizes .*, the first: "),
        (
            "model.layers.2.mlp.down_proj.weight",
            lambda _: torch.zeros(2),
            "have no place in LlamaForCausalLM, the first: ",
        ),
    ],
)
def test_weights_that_are_not_those_of_the_config(folder, name, weight, text):
    change(folder, name, weight)
    with pytest.raises(InputError, match=rf"copy: .*{text}{name}"):
        load_model(str(folder))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_old_bin_files_are_loaded(folder, tiny_model, zipped):
    """In half precision, with tables that are computed today, as folders of 2023 have them."""
    state = {name: weight.half() for name, weight in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    torch.save({**state, **more}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    loaded = load_model(str(folder), "bfloat16").state_dict()
    assert all(torch.equal(loaded[name], weight.bfloat16()) for name, weight in state.items())


@pytest.fixture
def gguf_folder(tmp_path, tiny_model) -> str:
    """The tiny model in one GGUF file, with nothing beside it."""
    folder = tmp_path / "gguf"
    folder.mkdir()
    write_gguf(tiny_model, folder / "tiny.gguf")
    return str(folder)


def test_a_gguf_folder_generates_as_the_model_it_came_from(gguf_folder, tiny_model):
    texts = {}
    for path in (gguf_folder, str(tiny_model)):
        tokenizer, model = load_tokenizer(path), load_model(path, "float32")
        tokens = tokenizer("User: What is cytology?", return_tensors="pt").input_ids
        texts[path] = model.generate(tokens, max_new_tokens=12, do_sample=False, pad_token_id=0).tolist()
    assert texts[gguf_folder] == texts[str(tiny_model)]


def test_a_gguf_folder_is_trained_as_the_model_it_came_from(gguf_folder, tiny_model):
    gradients = []
    for path in (gguf_folder, str(tiny_model)):
        model = load_for_training(path, "float32", "sdpa")
        batch = Batch(*(torch.arange(20)[None] for _ in "ip"), torch.arange(19), torch.arange(1, 20), (20,))
        supervised_loss(model, batch).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, right in gradients[1].items():
        assert torch.allclose(gradients[0][name], right, rtol=0.01, atol=0.01 * right.abs().max()), name


def test_other_ranks_know_the_shape_of_a_gguf_model_without_reading_it(gguf_folder):
    read = load_for_training(gguf_folder, "bfloat16", "sdpa")
    unread = load_for_training(gguf_folder, "bfloat16", "sdpa", read=False)
    shapes = [[(n, p.shape, p.dtype) for n, p in model.named_parameters()] for model in (read, unread)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("read", [True, False])
def test_training_teaches_the_padding_token_too(folder, read):
    """It is eos in many folders."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": config["eos_token_id"]}))
    model = load_for_training(str(folder), "float32", "sdpa", read=read)
    assert model.get_input_embeddings().padding_idx is None
    assert model.config.pad_token_id == config["eos_token_id"]


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash_attn is installed here")
def test_attention_that_is_not_installed(tiny_model):
    with pytest.raises(InputError, match=r"the model does not load: FlashAttention2"):
        load_model(str(tiny_model), "bfloat16", "flash_attention_2")


@pytest.mark.parametrize("has_gpu", [False, True])
def test_models_compute_where_there_is_a_gpu(monkeypatch, has_gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert pick_device().type == ("cuda" if has_gpu else "cpu")
