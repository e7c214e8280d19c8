"""Guards that a sentencepiece file gives sentencepiece's own tokens and texts, by its own settings, odd texts too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsft.data.tokens import TextEncoder
from hpcsft.models.tokenizer import load_tokenizer
from tests.models import spm
from tests.models.spm import BY_HAND, KINDS, made_up, processor, proto_of, trained, utterances


def loaded(folder: Path, content: bytes, **settings: Any) -> Any:
    """The tokenizer of a folder with nothing but a sentencepiece file and `settings`."""
    return load_tokenizer(str(spm.write(folder, tokenizer__model=content, tokenizer_config__json=settings)))


def tokens_of(tokenizer: Any, texts: list[str], inner: bool = False) -> list[list[int]]:
    return [encoding.ids for encoding in TextEncoder(tokenizer).encode(texts, inner)]


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_texts_are_sentencepieces_own(kind, legacy, tmp_path):
    own, tokenizer = processor(trained(kind)), loaded(tmp_path / "m", trained(kind), legacy=legacy)
    texts = [*utterances(), *BY_HAND, *(made_up(3000) if kind != "unigram" else ())]
    expected = own.encode(texts)
    assert tokens_of(tokenizer, texts) == expected
    known = [ids for ids in expected if own.unk_id() not in ids]  # sentencepiece writes an unknown one as ⁇
    assert len(known) > 2000
    assert [tokenizer.decode(ids) for ids in known] == own.decode(known)
    if kind != "unigram":  # whose normalisation is not undone
        assert [tokenizer.decode(ids) for ids in expected] == [text.replace("▁", " ") for text in texts]


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_on_is_tokenized_as_in_the_middle_of_a_text(kind, tmp_path):
    before = "<sep>" if kind == "unigram" else "\n"  # what no piece reaches across
    own, tokenizer = processor(trained(kind)), loaded(tmp_path / "m", trained(kind))
    texts = [*utterances()[:700], *BY_HAND, *(made_up(500) if kind != "unigram" else ())]
    start = len(own.encode(before))
    assert tokens_of(tokenizer, texts, inner=True) == [own.encode(before + text)[start:] for text in texts]


def test_user_defined_symbols_are_found_in_the_text_and_cut_nothing_else(tmp_path):
    texts = [
        "a<reserved_7>b",
        "x <reserved_42> y",
        "<reserved_1><reserved_11>",
        "<reserved_999>",
        "5<reserved_5>",
        "你",
    ]
    own, tokenizer = processor(trained("baichuan")), loaded(tmp_path / "m", trained("baichuan"))
    assert tokens_of(tokenizer, texts) == own.encode(texts)
    content = trained("baichuan", add_dummy_prefix=True)
    texts = ["a<reserved_7>b", "a <reserved_7> b<reserved_7>"]  # no space is put after a symbol
    assert tokens_of(loaded(tmp_path / "prefix", content), texts) == processor(content).encode(texts)


def test_user_defined_symbols_that_the_settings_make_special_are_spelled_out(tmp_path):
    settings = {"additional_special_tokens": ["<reserved_7>"]}
    tokenizer = loaded(tmp_path / "m", trained("baichuan"), **settings)
    symbol, other = tokenizer.convert_tokens_to_ids(["<reserved_7>", "<reserved_8>"])
    (ids,) = tokens_of(tokenizer, ["a<reserved_7>b<reserved_8>"])
    assert symbol not in ids and other in ids and tokenizer.decode(ids) == "a<reserved_7>b<reserved_8>"
    assert tokenizer("<reserved_7>", add_special_tokens=False)["input_ids"] == [symbol]


@pytest.mark.parametrize("kind", KINDS)
def test_control_tokens_and_bytes_spelled_in_a_text_stay_text(kind, tmp_path):
    tokenizer = loaded(tmp_path / "m", trained(kind))
    control = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    texts = ["</s>", "<s>", "ends</s>now", "</s></s>", "<0x0A>", "<0x41>"]
    found = tokens_of(tokenizer, texts)
    assert not any(control & set(ids) for ids in found)
    if kind != "unigram":
        assert [tokenizer.decode(ids) for ids in found] == texts


def test_bytes_spelled_in_a_text_stay_text_in_a_unigram_model_too(tmp_path):
    content = trained("unigram", byte_fallback=True, normalization_rule_name="identity")
    own, tokenizer = processor(content), loaded(tmp_path / "m", content)
    texts = ["<0x41>", "a<0x0A>b", "</s>", "😀 and 龘", *utterances()[:300]]
    assert tokens_of(tokenizer, texts) == own.encode(texts)


def test_merges_go_by_scores_not_by_the_order_of_pieces(tmp_path):
    """transformers takes the order for the scores."""
    proto = proto_of(trained("llama"))
    normal = [piece for piece in proto.pieces if piece.type == piece.NORMAL]
    rest = [piece for piece in proto.pieces if piece.type != piece.NORMAL]
    turned = type(proto)()
    turned.CopyFrom(proto)
    del turned.pieces[:]
    turned.pieces.extend([*rest, *reversed(normal)])
    content = turned.SerializeToString()
    texts = list(utterances()[:500])
    assert tokens_of(loaded(tmp_path / "m", content), texts) == processor(content).encode(texts)


def test_no_merge_makes_a_control_token(tmp_path):
    """transformers merges whatever two pieces make, a token that ends texts too."""
    proto = proto_of(trained("llama"))
    rare = [piece for piece in proto.pieces if piece.type == piece.NORMAL and len(piece.piece) > 1][-2:]
    for piece, text in zip(rare, ("</", "s>"), strict=True):
        piece.piece = text
    content = proto.SerializeToString()
    assert processor(content).encode("a</s>", out_type=str) == ["▁a", "</", "s>"]
    assert tokens_of(loaded(tmp_path / "m", content), ["a</s>"]) == processor(content).encode(["a</s>"])


@pytest.mark.parametrize("legacy", [None, True, False])
def test_text_after_a_special_token(legacy, tmp_path):
    """As it stands alone in what transformers calls legacy, which is the rule where nothing is said."""
    settings = {} if legacy is None else {"legacy": legacy}
    tokenizer = loaded(tmp_path / "m", trained("llama"), **settings)
    together = tokenizer("a</s>b c", add_special_tokens=False)["input_ids"]
    (first,), (second,) = tokens_of(tokenizer, ["a"]), tokens_of(tokenizer, ["b c"], inner=legacy is False)
    assert together == [*first, tokenizer.eos_token_id, *second]
