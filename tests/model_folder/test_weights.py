"""Guards that weights that are missing, damaged or of another format are told before anything is queued."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsft.model_folder.check import check_model
from hpcsft.model_folder.weights import find_weights
from tests.model_folder.made import refused, safetensors, write

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def sharded(model) -> Path:
    """The same model in two files."""
    (model / "model.safetensors").unlink()
    (model / FIRST).write_bytes(safetensors({"model.embed_tokens.weight": [3, 2]}))
    (model / SECOND).write_bytes(safetensors({"b": [5], "c": [1]}))
    write(model, INDEX, {"weight_map": {"model.embed_tokens.weight": FIRST, "b": SECOND}})
    return model


def test_several_files_are_one_model(sharded):
    assert check_model(str(sharded), "model.path").num_parameters == 12


def test_a_missing_shard(sharded):
    (sharded / SECOND).unlink()
    assert refused(sharded, rf"1 file \({SECOND}\) of weights missing") == "download what is missing"
    (sharded / FIRST).unlink()
    refused(sharded, rf"2 files \({FIRST}, \.\.\.\) of weights missing")


def test_an_index_that_names_absent_tensors(sharded):
    places = {"model.embed_tokens.weight": FIRST, "b": FIRST, "x": FIRST, "c": SECOND}
    write(sharded, INDEX, {"weight_map": places})
    hint = refused(sharded, rf"{INDEX}: names 2 weights \(b, \.\.\.\) that {FIRST} does not hold")
    assert "different models or versions" in hint


def test_a_shard_cut_off(sharded):
    content = (sharded / SECOND).read_bytes()
    (sharded / SECOND).write_bytes(content[:-1])
    refused(sharded, f"{SECOND}: not a whole safetensors file")


@pytest.mark.parametrize("value", [{}, {"weight_map": {}}, {"weight_map": [FIRST]}, {"weight_map": {"a": 1}}])
def test_an_index_that_is_none(value, sharded):
    write(sharded, INDEX, value)
    refused(sharded, f"{INDEX}: no index of weights: a weight_map of names and files is expected")


def test_an_index_that_is_no_json(sharded):
    (sharded / INDEX).write_text("version https://git-lfs")
    refused(sharded, f"{INDEX}: cannot be read: Expecting value")


def test_shards_without_their_index(sharded):
    (sharded / INDEX).unlink()
    text = rf"{INDEX} is missing, which tells what is in {FIRST} and its like"
    assert refused(sharded, text) == "download it, too"


def test_no_weights(model):
    (model / "model.safetensors").unlink()
    assert "model.safetensors" in refused(model, "no weights inside")


def test_weights_of_another_name(model):
    (model / "model.safetensors").rename(model / "weights.safetensors")
    assert refused(model, "no weights inside").endswith("; there is only weights.safetensors")


def test_a_file_without_weights(model):
    (model / "model.safetensors").write_bytes(safetensors({}))
    assert refused(model, r"model\.safetensors: no weights inside") == "download it again"


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("consolidated.00.pth", "in Meta's own layout", "convert_llama_weights_to_hf.py"),
        ("consolidated.safetensors", "in Mistral's own layout", r"model*.safetensors"),
        ("tf_model.h5", "of TensorFlow", "from_tf=True"),
        ("flax_model.msgpack", "of Flax", "from_flax=True"),
    ],
)
def test_weights_in_a_format_that_nothing_reads(name, text, hint, model):
    (model / "model.safetensors").rename(model / name)
    assert hint in refused(model, f"the weights are {text}, which transformers does not load")


def test_of_two_kinds_the_one_is_looked_at_that_transformers_reads(sharded):
    (sharded / "pytorch_model.bin").write_bytes(b"damaged, and not read")
    assert check_model(str(sharded), "model.path").num_parameters == 12
    assert find_weights(sharded).name == INDEX
    (sharded / "model.safetensors").write_bytes(safetensors({"model.embed_tokens.weight": [3, 2]}))
    assert check_model(str(sharded), "model.path").num_parameters == 6


WHOLE = safetensors({"a": [2, 3]})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        WHOLE[:5],
        WHOLE[:40],
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": "b"',
        safetensors({"a": [1]}).replace(b"shape", b"sharp"),
        safetensors({"a": [1]}).replace(b"[1]", b'"1"'),
        WHOLE[:-1],
    ],
    ids=["empty", "length cut", "header cut", "a list", "no JSON", "no shape", "odd shape", "cut"],
)
def test_weights_that_are_not_whole(content, model):
    """What an interrupted download leaves."""
    (model / "model.safetensors").write_bytes(content)
    assert refused(model, r"model\.safetensors: not a whole safetensors file") == "download it again"


def test_tables_of_rotary_positions_are_no_parameters(model):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    (model / "model.safetensors").write_bytes(safetensors({"model.embed_tokens.weight": [3, 2], name: [64]}))
    assert check_model(str(model), "model.path").num_parameters == 6
