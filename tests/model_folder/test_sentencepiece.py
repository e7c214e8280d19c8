"""Guards that a sentencepiece file is read by hand as sentencepiece reads it, and that what is none, is damaged or
asks for more is told.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsft.errors import InputError
from hpcsft.model_folder.sentencepiece import SentencePieceModel, read_sentencepiece
from tests.model_folder.made import message_piece
from tests.models.spm import KINDS, processor, proto_of, trained


def read(folder: Path, content: bytes) -> SentencePieceModel:
    file = folder / "tokenizer.model"
    file.write_bytes(content)
    return read_sentencepiece(file)


@pytest.mark.parametrize(
    "options",
    [
        *({}, {"bos_piece": "<start>", "eos_piece": "<end>", "unk_piece": "<odd>"}, {"bos_id": -1, "eos_id": -1}),
        {"eos_id": -1, "user_defined_symbols": ["</s>"]},
        {"control_symbols": ["<call>"], "pad_id": 3, "add_dummy_prefix": True, "remove_extra_whitespaces": True},
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_all_is_read_as_sentencepiece_reads_it(kind, options, tmp_path):
    content = trained(kind, **{name: tuple(v) if isinstance(v, list) else v for name, v in options.items()})
    found, proto, own = read(tmp_path, content), proto_of(content), processor(content)
    assert list(found.pieces) == [(piece.piece, piece.score, piece.type) for piece in proto.pieces]
    assert found.texts == {own.id_to_piece(number): number for number in range(own.vocab_size())}
    named = {"bos": own.bos_id(), "eos": own.eos_id(), "unk": own.unk_id()}
    expected = {name: own.id_to_piece(number) if number >= 0 else None for name, number in named.items()}
    assert {name: getattr(found, name) for name in named} == expected
    rules = proto.normalizer_spec
    assert (found.kind, found.charsmap) == (proto.trainer_spec.model_type, rules.precompiled_charsmap)
    assert found.charsmap or kind != "unigram"
    assert (found.add_dummy_prefix, found.remove_extra_whitespaces) == (
        rules.add_dummy_prefix,
        rules.remove_extra_whitespaces,
    )


@pytest.mark.parametrize("parts", [("trainer_spec",), ("normalizer_spec",), ("trainer_spec", "normalizer_spec")])
def test_settings_that_the_file_lacks_are_sentencepieces_defaults(parts, tmp_path):
    proto = proto_of(trained("llama"))
    for part in parts:
        proto.ClearField(part)
    for piece in proto.pieces[3:9]:
        piece.ClearField("type")
        piece.ClearField("score")
    found, trainer, rules = read(tmp_path, proto.SerializeToString()), proto.trainer_spec, proto.normalizer_spec
    assert list(found.pieces) == [(piece.piece, piece.score, piece.type) for piece in proto.pieces]
    assert (found.kind, found.bos, found.eos) == (trainer.model_type, trainer.bos_piece, trainer.eos_piece)
    assert (found.add_dummy_prefix, found.remove_extra_whitespaces, found.charsmap) == (
        rules.add_dummy_prefix,
        rules.remove_extra_whitespaces,
        rules.precompiled_charsmap,
    )


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("trainer_spec", "model_type", 3, "its pieces are whole words or characters"),
        ("trainer_spec", "model_type", 4, "its pieces are whole words or characters"),
        ("trainer_spec", "treat_whitespace_as_suffix", True, "it puts spaces after words"),
        ("normalizer_spec", "escape_whitespaces", False, "its pieces hold real spaces"),
    ],
)
def test_what_is_not_done_is_refused(part, field, value, message, tmp_path):
    proto = proto_of(trained("llama"))
    setattr(getattr(proto, part), field, value)
    with pytest.raises(InputError, match=rf"tokenizer\.model: {message}, which is not supported") as caught:
        read(tmp_path, proto.SerializeToString())
    assert "tokenizer.json" in caught.value.hint


@pytest.mark.parametrize("content", [b"IQ== 0\nIg== 1\n", b""], ids=["tiktoken", "empty"])
def test_a_file_of_another_kind(content, tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.model: no sentencepiece model") as caught:
        read(tmp_path, content)
    assert "tokenizer.json" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        (message_piece(1, message_piece(1, b"a"))[:-1], "download it again"),
        (message_piece(1, b"\x0b"), "download it again"),
        (message_piece(1, message_piece(2, b"a")), "download it again"),
        (message_piece(1, message_piece(1, b"\xff")), "download it again"),
        (message_piece(1, message_piece(1, b"a") + message_piece(2, 5)), "download it again"),
        (b"\x0a", "download it again"),
        (b"\x0a\xff", "download it again"),
    ],
    ids=["LFS pointer", "cut off", "odd field", "no text", "no UTF-8", "no score", "no length", "half a number"],
)
def test_a_file_that_is_not_whole(content, hint, tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.model: not a whole sentencepiece file") as caught:
        read(tmp_path, content)
    assert hint in caught.value.hint


def test_a_real_file_that_is_cut_off(tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.model: not a whole sentencepiece file"):
        read(tmp_path, trained("llama")[:-1])
