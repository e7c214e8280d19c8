"""Guards that the tokenizer in a GGUF file is the model's own, and that one which would be another is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Tokenizer, pre_tokenizers

from hpcsft.data.tokens import TextEncoder
from hpcsft.errors import InputError
from hpcsft.models.tokenizer import load_tokenizer
from tests.models.spm import BY_HAND, CHATML, byte_level, made_up, processor, proto_of, trained, utterances

TEXTS = [*utterances()[:600], *BY_HAND, *made_up(500)]
CONTROL, NORMAL = 3, 1


def write(folder: Path, model: str, pre: str | None = None, architecture: str = "llama", **fields: Any) -> Path:
    """A folder with a GGUF file that holds a tokenizer and nothing else; `fields` are tokenizer.ggml.*."""
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / "model.gguf", architecture)
    writer.add_tokenizer_model(model)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    adders = {"tokens": writer.add_token_list, "token_type": writer.add_token_types, "scores": writer.add_token_scores}
    adders |= {"merges": writer.add_token_merges, "chat_template": writer.add_chat_template}
    for name, value in fields.items():
        plain = writer.add_bool if isinstance(value, bool) else writer.add_uint32
        adders[name](value) if name in adders else plain(f"tokenizer.ggml.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def of_pieces(folder: Path, kind: str, **fields: Any) -> Path:
    """The sentencepiece model `kind` in a GGUF file."""
    proto = proto_of(trained(kind))
    pieces = {name: [getattr(piece, ours) for piece in proto.pieces] for name, ours in PIECES.items()}
    prefix = proto.normalizer_spec.add_dummy_prefix
    ids = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return write(folder, "llama", **pieces, **ids, add_space_prefix=prefix, **fields)


PIECES = {"tokens": "piece", "scores": "score", "token_type": "type"}


def of_bytes(folder: Path, backend: Tokenizer, pre: str | None, **fields: Any) -> Path:
    """A byte-level tokenizer in a GGUF file."""
    model = json.loads(backend.to_str())["model"]
    tokens = sorted(backend.get_vocab(), key=backend.get_vocab().get)
    types = [CONTROL if token in CHATML else NORMAL for token in tokens]
    merges = [" ".join(pair) for pair in model["merges"]]
    ids = {"eos_token_id": tokens.index(CHATML[2]), "bos_token_id": tokens.index(CHATML[0])}
    return write(folder, "gpt2", pre, tokens=tokens, token_type=types, merges=merges, **ids, **fields)


def tokens_of(tokenizer: Any) -> list[list[int]]:
    return [encoding.ids for encoding in TextEncoder(tokenizer).encode(TEXTS)]


@pytest.mark.parametrize("kind", ["llama", "baichuan"])
def test_sentencepiece_tokens_are_sentencepieces_own(kind, tmp_path):
    tokenizer = load_tokenizer(str(of_pieces(tmp_path / "m", kind)))
    assert tokens_of(tokenizer) == processor(trained(kind)).encode(TEXTS)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 2, 0)
    assert tokenizer("")["input_ids"] == [1]  # llama.cpp's rule where the file does not tell


def test_what_the_file_tells_of_bos_and_of_chats(tmp_path):
    folder = of_pieces(tmp_path / "m", "llama", add_bos_token=False, chat_template="{{ 1 }}")
    tokenizer = load_tokenizer(str(folder))
    assert (tokenizer("")["input_ids"], tokenizer.chat_template) == ([], "{{ 1 }}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ 2 }}", "eos_token": "<unk>"}))
    tokenizer = load_tokenizer(str(folder))
    assert (tokenizer.eos_token_id, tokenizer.chat_template) == (0, "{{ 2 }}")


@pytest.mark.parametrize("pre", ["qwen2", "smollm", "gpt-2", None])
def test_byte_level_tokens_are_the_tokenizer_s_own(pre, tmp_path):
    backend = byte_level(CHATML)
    if pre != "qwen2":
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, words]) if pre == "smollm" else words
        backend.normalizer = None
    tokenizer = load_tokenizer(str(of_bytes(tmp_path / "m", backend, pre)))
    backend.encode_special_tokens = True
    expected = [encoding.ids for encoding in backend.encode_batch(TEXTS, add_special_tokens=False)]
    assert tokens_of(tokenizer) == expected
    assert [tokenizer.decode(ids) for ids in expected[:600]] == TEXTS[:600]
    assert set(CHATML) <= tokenizer.get_added_vocab().keys()
    assert (tokenizer.eos_token, tokenizer("")["input_ids"]) == (CHATML[2], [])


def test_a_word_of_llama_3_that_no_merge_makes_is_found(tmp_path):
    backend = byte_level(CHATML)
    settings = json.loads(backend.to_str())
    settings["model"]["vocab"]["unmergeable"] = len(settings["model"]["vocab"])
    settings["added_tokens"] = []
    backend = Tokenizer.from_str(json.dumps(settings))
    backend.add_special_tokens(list(CHATML))
    tokenizer = load_tokenizer(str(of_bytes(tmp_path / "m", backend, "llama-bpe")))
    assert len(TextEncoder(tokenizer).encode(["unmergeable"])[0].ids) == 1


def test_a_way_to_cut_words_that_is_not_known_is_refused(tmp_path):
    folder = of_bytes(tmp_path / "m", byte_level(CHATML), "nonesuch")
    with pytest.raises(InputError, match=r"model.gguf: its tokenizer cuts words in a way .* known here: nonesuch"):
        load_tokenizer(str(folder))


@pytest.mark.parametrize(("model", "architecture"), [("t5", "falcon"), ("llama", "gemma3")])
def test_another_kind_of_tokenizer_is_refused(model, architecture, tmp_path):
    folder = write(tmp_path / "m", model, architecture=architecture, tokens=["a", "b"])
    with pytest.raises(InputError, match=f"not read from GGUF files: {architecture}, {model}") as caught:
        load_tokenizer(str(folder))
    assert "tokenizer.json" in caught.value.hint


def test_gguf_folders_load_without_torch(tmp_path):
    folder = of_pieces(tmp_path / "m", "llama")
    code = (
        "import sys; from hpcsft.models.tokenizer import load_tokenizer, without_torch; without_torch();"
        f"print(load_tokenizer({str(folder)!r}).eos_token_id, sys.modules['torch'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["2", "None"]
