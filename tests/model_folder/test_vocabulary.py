"""Guards that a tokenizer that does not fit its model, or cannot end an answer, is told before anything is queued."""

from __future__ import annotations

import io
import shutil

import pytest
import sentencepiece

from hpcsft.model_folder.check import check_model
from tests.model_folder.made import TOKENIZER, refused, safetensors, write

NO_EOS = "the tokenizer has no eos token, which ends an answer"


@pytest.fixture
def rows(model):
    """Sets the number of rows of the embedding."""

    def set_rows(number: int) -> None:
        (model / "model.safetensors").write_bytes(safetensors({"model.embed_tokens.weight": [number, 2]}))

    return set_rows


def trained(**options) -> bytes:
    """A sentencepiece model of 300 pieces, some of them bytes."""
    stream = io.BytesIO()
    texts = ["the cell is the unit of life", "所有生物都由细胞组成", "1234567890"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=stream, model_type="bpe", vocab_size=300, byte_fallback=True,
        hard_vocab_limit=False, minloglevel=2, **options,
    )  # fmt: skip
    return stream.getvalue()


@pytest.fixture(scope="module")
def pieces() -> bytes:
    return trained()


def test_no_tokenizer(model):
    (model / "tokenizer.json").unlink()
    assert "tokenizer.json" in refused(model, "no tokenizer inside")


def test_a_vocabulary_larger_than_the_embedding(model, rows):
    rows(2)
    assert "different models" in refused(model, "the tokenizer has 3 tokens, the embedding 2 rows")


def test_a_padded_embedding_is_larger_than_the_vocabulary(model, rows):
    rows(64)
    check_model(str(model), "model.path")


def test_the_config_counts_where_the_embedding_has_another_name(model):
    (model / "model.safetensors").write_bytes(safetensors({"odd.weight": [3, 2]}))
    check_model(str(model), "model.path")
    write(model, "config.json", {"model_type": "llama", "vocab_size": 2})
    refused(model, "the tokenizer has 3 tokens, the embedding 2 rows")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokenizer.json", {**TOKENIZER, "added_tokens": [{"id": 3, "content": "<|im_start|>"}]}),
        ("tokenizer.json", {"model": {"type": "Unigram", "vocab": [["a", 0], ["</s>", 0], ["b", 0], ["c", -1.5]]}}),
        ("added_tokens.json", {"<pad>": 3}),
        ("tokenizer_config.json", {"eos_token": "</s>", "added_tokens_decoder": {"3": {"content": "<pad>"}}}),
    ],
)
def test_added_tokens_count(name, value, model, rows):
    write(model, name, value)
    refused(model, "the tokenizer has 4 tokens, the embedding 3 rows")
    rows(4)
    check_model(str(model), "model.path")


@pytest.mark.parametrize("nested", [True, False])
def test_a_token_for_images_needs_no_row(nested, model):
    """Gemma 3's models of text alone come with one."""
    write(model, "tokenizer.json", {**TOKENIZER, "added_tokens": [{"id": 3, "content": "<image>"}]})
    names = {"image_token": "<image>"}
    write(
        model, "tokenizer_config.json", {"eos_token": "</s>", **({"extra_special_tokens": names} if nested else names)}
    )
    check_model(str(model), "model.path")


def test_a_vocabulary_in_a_file_of_its_own(model, rows):
    (model / "tokenizer.json").unlink()
    write(model, "vocab.json", {"a": 0, "b": 1, "c": 2})
    check_model(str(model), "model.path")
    write(model, "added_tokens.json", {"d": 3})
    refused(model, "the tokenizer has 4 tokens, the embedding 3 rows")


@pytest.mark.parametrize("eos", ["</s>", {"content": "</s>", "lstrip": False}])
@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_eos_is_named_by_either_file(eos, name, model):
    (model / "tokenizer_config.json").unlink()
    write(model, name, {"eos_token": eos})
    check_model(str(model), "model.path")


@pytest.mark.parametrize("settings", [{}, {"eos_token": ""}, {"eos_token": None}, {"eos_token": {"content": ""}}])
@pytest.mark.parametrize("plain", ["TokenizersBackend", "PreTrainedTokenizerFast"])
def test_a_tokenizer_without_eos(settings, plain, model):
    write(model, "tokenizer_config.json", {**settings, "tokenizer_class": plain})
    assert "eos_token" in refused(model, NO_EOS)


@pytest.mark.parametrize("settings", [{}, {"tokenizer_class": "LlamaTokenizer"}])
def test_a_class_that_may_know_its_eos_is_left_to_training(settings, model):
    write(model, "tokenizer_config.json", settings)
    check_model(str(model), "model.path")
    write(model, "tokenizer.json", {"model": {"vocab": {"a": 0, "b": 1, "<|end|>": 2}}})
    refused(model, NO_EOS)


def test_an_eos_that_is_no_token(model):
    write(model, "tokenizer_config.json", {"eos_token": "<|end|>"})
    refused(model, r"eos_token is '<\|end\|>', which the vocabulary lacks")


def test_the_early_layout_of_llama(model, rows, pieces):
    """Of tokenizer.model alone, with settings that leave eos empty."""
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.model").write_bytes(pieces)
    write(model, "tokenizer_config.json", {"bos_token": "", "eos_token": "", "tokenizer_class": "LLaMATokenizer"})
    rows(300)
    check_model(str(model), "model.path")
    rows(299)
    refused(model, "the tokenizer has 300 tokens, the embedding 299 rows")


def test_eos_may_be_named_in_the_tokenizer_model_beside(model, rows, pieces):
    (model / "tokenizer.model").write_bytes(pieces)
    write(model, "tokenizer_config.json", {})
    rows(300)
    check_model(str(model), "model.path")


def test_a_sentencepiece_model_without_eos(model, rows):
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.model").write_bytes(trained(eos_id=-1))
    rows(300)
    write(model, "tokenizer_config.json", {})
    refused(model, NO_EOS)
    write(model, "tokenizer_config.json", {"eos_token": "<s>"})
    check_model(str(model), "model.path")


def test_a_tokenizer_model_of_another_kind(model):
    (model / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")  # tiktoken's
    check_model(str(model), "model.path")
    (model / "tokenizer.json").unlink()
    assert "needs a tokenizer.json" in refused(model, r"tokenizer\.model: no sentencepiece model")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "added_tokens.json"])
def test_settings_that_are_no_json(name, model):
    (model / name).write_text("version https://git-lfs")
    refused(model, rf"{name}: cannot be read: Expecting value")
    (model / name).write_text("[]")
    assert "tokenizer" in refused(model, rf"{name}: not a JSON object")


def test_a_real_tokenizer(tiny_model, tmp_path):
    check_model(str(tiny_model), "model.path")
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    write(copy, "added_tokens.json", {"<|more|>": 600})
    refused(copy, "the tokenizer has 601 tokens, the embedding 600 rows")
