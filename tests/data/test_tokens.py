"""Guards that texts become the tokens of the tokenizer itself, that control tokens in texts stay text, and that a table
gives each piece its own tokens in whatever company it was added.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hpcsft.data.pieces import Piece
from hpcsft.data.tokens import TextEncoder, TokenTable
from hpcsft.errors import StageError
from tests.data.tokenizers import KINDS, train_tokenizer


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, conversations) -> Any:
    return train_tokenizer(request.param, [text for texts in conversations for text in texts])


def test_a_text_by_itself_is_tokenized_as_the_tokenizer_does_it(tokenizer, conversations):
    texts = [text for texts in conversations for text in texts] + ["", " ", "\n", "  x  ", "</s>", "a<s>b"]
    plain = {"add_special_tokens": False, "split_special_tokens": True}
    expected = tokenizer(texts, **plain)["input_ids"]
    assert [encoding.ids for encoding in TextEncoder(tokenizer).encode(texts)] == expected


def test_the_tokenizer_itself_is_left_as_it_was(tokenizer):
    tokenizer.backend_tokenizer.enable_truncation(3)
    try:
        before = tokenizer("one two three four five </s>")["input_ids"]
        encoder = TextEncoder(tokenizer)
        assert len(encoder.encode(["one two three four five six seven"])[0].ids) > 3
        assert tokenizer("one two three four five </s>")["input_ids"] == before
    finally:
        tokenizer.backend_tokenizer.no_truncation()


def test_an_inner_text_goes_on_from_what_precedes_it(tokenizer):
    """Cut between two words, the tokens of the parts are those of the whole."""
    encoder = TextEncoder(tokenizer)
    whole = encoder.encode(["Who was the first president?"])[0].ids
    parts = encoder.encode(["Who was"])[0].ids + encoder.encode([" the first president?"], inner=True)[0].ids
    assert parts == whole


def test_a_table_keeps_pieces_apart(tokenizer):
    table = TokenTable(TextEncoder(tokenizer))
    pieces = [Piece("hello"), Piece("hello", inner=True), Piece(1), Piece("hello", 3), Piece(""), Piece(2, 3)]
    table.add(pieces[:2])
    table.add(pieces)
    table.add([])
    entries = table.entries(pieces)
    assert entries[0] == entries[3]  # who answers does not matter for tokens
    assert len({entry for entry in entries}) == 5
    ids, starts = table.flat()
    found = [ids[starts[e] : starts[e] + table.lengths[e]].tolist() for e in entries]
    encode = TextEncoder(tokenizer).encode
    hello, inner = encode(["hello"])[0].ids, encode(["hello"], inner=True)[0].ids
    assert found == [hello, inner, [1], hello, [], [2]]
    assert table.measure(pieces) == [len(tokens) for tokens in found]
    assert ids.dtype == np.int32


def test_an_empty_table_is_empty(tokenizer):
    ids, starts = TokenTable(TextEncoder(tokenizer)).flat()
    assert len(ids) == len(starts) == 0


def test_what_the_tokenizer_adds_is_known(tokenizer):
    text = "Who was it?"
    added = len(tokenizer(text)["input_ids"]) - len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert TextEncoder(tokenizer).num_added == added


@pytest.mark.parametrize("byte_fallback", [True, False])
def test_a_unigram_model_finds_no_control_token_in_a_text(conversations, byte_fallback):
    """It takes the likeliest pieces of its vocabulary, and its special tokens are among them."""
    model = Tokenizer(models.Unigram())
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    alphabet = sorted({character for texts in conversations for text in texts for character in text})
    trainer = trainers.UnigramTrainer(
        vocab_size=2000, special_tokens=special, unk_token="<unk>", initial_alphabet=alphabet, show_progress=False
    )
    model.train_from_iterator([text for texts in conversations for text in texts], trainer)
    settings = json.loads(model.to_str())
    settings["model"]["byte_fallback"] = byte_fallback
    backend = Tokenizer.from_str(json.dumps(settings))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    spelled = ["</s>", "ends</s>now", "<s> x", "a<s></s>b"]
    plain = {"add_special_tokens": False, "split_special_tokens": True}
    control = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert any(control & set(ids) for ids in tokenizer(spelled, **plain)["input_ids"])  # as it is
    encoder = TextEncoder(tokenizer)
    assert not any(control & set(encoding.ids) for encoding in encoder.encode(spelled))
    texts = [text for texts in conversations[:300] for text in texts] + ["\u2603 snow", "x\u2603\u2603y"]
    assert [encoding.ids for encoding in encoder.encode(texts)] == tokenizer(texts, **plain)["input_ids"]


def test_a_tokenizer_that_cannot_keep_text_apart_is_refused(tokenizer, monkeypatch):
    monkeypatch.setattr("hpcsft.data.tokens._for_text", lambda backend: Tokenizer.from_str(backend))
    with pytest.raises(StageError, match=r"the tokenizer reads '.*' in a text as its control token"):
        TextEncoder(tokenizer)
