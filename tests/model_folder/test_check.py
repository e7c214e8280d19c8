"""Guards what submit tells of a model: its architecture and size where all is well, and one clear error where not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcsft.model_folder.check import ModelFacts, check_model
from tests.conftest import build_tiny_model
from tests.estimate.models import LLAMA_7B
from tests.model_folder.made import LLAMA, make_folder, refused, write


def test_a_model_tells_its_architecture_and_size(model):
    size = (model / "model.safetensors").stat().st_size
    expected = ModelFacts(architecture="LlamaForCausalLM", num_parameters=11, weights_bytes=size, model_type="llama")
    assert check_model(str(model), "model.path") == expected


def test_a_config_without_architectures_tells_its_type(model):
    write(model, "config.json", {"model_type": "llama"})
    assert check_model(str(model), "model.path").architecture == "llama"


def test_the_shape_is_the_configs(model):
    """Of quantized weights as well, whose own sizes are others."""
    write(model, "config.json", {**LLAMA_7B, "vocab_size": 3, "quantization_config": {"quant_method": "gptq"}})
    facts = check_model(str(model), "model.path")
    assert facts.num_parameters == 11 and facts.quantization == "gptq"
    assert facts.shape and facts.shape.num_layers == 32


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_as_torch_counts_them(tied, tmp_path, conversations):
    """In one file or in several, of either kind, with the output layer of its own or tied to the embeddings."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = build_tiny_model(tmp_path / "one", conversations, tie_word_embeddings=tied)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    count = sum(parameter.numel() for parameter in loaded.parameters())
    assert check_model(str(folder), "model.path").num_parameters == count
    sharded = shutil.copytree(folder, tmp_path / "several", ignore=shutil.ignore_patterns("*.safetensors"))
    loaded.save_pretrained(sharded, max_shard_size="50KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    facts = check_model(str(sharded), "model.path")
    assert facts.num_parameters == count
    assert facts.weights_bytes == sum(file.stat().st_size for file in sharded.glob("*.safetensors"))
    (folder / "model.safetensors").unlink()
    torch.save(loaded.state_dict(), folder / "pytorch_model.bin")
    assert check_model(str(folder), "model.path").num_parameters == count


def test_no_model_folder(tmp_path):
    assert "Hugging Face format" in refused(tmp_path / "none", "no such folder")


def test_no_config(model):
    (model / "config.json").unlink()
    assert "Hugging Face" in refused(model, "no config.json inside")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{", "config.json: cannot be read: Expecting property name"),
        (b"\xff\xfe", "config.json: cannot be read: 'utf-8' codec"),
        (b"[]", "config.json: not a JSON object"),
        (b"3", "config.json: not a JSON object"),
        (b"[" * 100_000, "config.json: cannot be read: maximum recursion depth"),
    ],
)
def test_a_config_that_is_none(content, text, model):
    (model / "config.json").write_bytes(content)
    refused(model, text)


def test_an_embedding_of_another_size_than_the_config_tells(model):
    write(model, "config.json", {**LLAMA, "vocab_size": 4})
    hint = refused(model, r"the embedding has 3 rows, config.json says 4 \(vocab_size\)")
    assert "different models" in hint


def test_a_generation_config_that_is_none(model):
    """transformers would end in a traceback, after the job has waited its turn."""
    write(model, "generation_config.json", {"temperature": 0.9})
    check_model(str(model), "model.path")
    write(model, "generation_config.json", [])
    refused(model, r"generation_config\.json: not a JSON object")


def test_looking_at_a_model_loads_nothing_heavy(tmp_path):
    """Nor does a pickle load torch: a login node answers at once."""
    import torch

    folder = make_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": torch.zeros(3, 2)}, folder / "pytorch_model.bin")
    code = "import sys; from hpcsft.model_folder.check import check_model; check_model(sys.argv[1], 'model.path'); "
    code += "print({'gguf', 'numpy', 'safetensors', 'torch', 'transformers', 'google'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60, cwd=Path.cwd()
    )
    assert done.stdout == "set()\n", done.stderr
