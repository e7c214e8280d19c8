"""Guards that no code and no second copy of the weights is fetched, and that a half-fetched model is known as such."""

from __future__ import annotations

import json

import pytest

from hpcsft.hub.files import missing_parts, small_files, weight_files

REPOSITORY = [
    *("README.md", "config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja", "merges.txt"),
    *("modeling_x.py", "tokenization_x.py", "onnx/model.onnx", "onnx/config.json", "flax_model.msgpack", "tf_model.h5"),
    *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "consolidated.safetensors", "original/consolidated.00.pth", "training_args.bin"),
]


def test_what_describes_the_model_and_no_code():
    assert small_files(REPOSITORY) == [
        *("chat_template.jinja", "config.json", "merges.txt", "model.safetensors.index.json", "tokenizer.json"),
        "tokenizer.model",
    ]


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        (REPOSITORY, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]),
        (["model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (
            ["pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin"],
            ["pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin"],
        ),
        (["adapter_config.json", "adapter_model.safetensors"], ["adapter_model.safetensors"]),
        (["x.Q8_0.gguf"], ["x.Q8_0.gguf"]),
        (["x.Q4_0.gguf", "x.Q8_0.gguf"], []),
        (["tf_model.h5", "training_args.bin"], []),
    ],
)
def test_weights_of_one_kind(names, weights):
    assert weight_files(names) == weights


def test_parts_that_are_missing(tmp_path):
    assert missing_parts(tmp_path) == ["the weights"]
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1-of-2.safetensors").touch()
    assert missing_parts(tmp_path) == ["model-2-of-2.safetensors"]
    (tmp_path / "model-2-of-2.safetensors").touch()
    assert missing_parts(tmp_path) == []


def test_an_index_of_weights_that_are_not_taken_counts_for_nothing(tmp_path):
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "pytorch_model-1.bin"}}))
    assert missing_parts(tmp_path) == []


def test_an_index_that_is_torn(tmp_path):
    (tmp_path / "model-1-of-2.safetensors").touch()
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a"')
    with pytest.raises(ValueError, match="Expecting"):
        missing_parts(tmp_path)
