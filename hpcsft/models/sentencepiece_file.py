"""A sentencepiece model as a Rust tokenizer that gives sentencepiece's own tokens, by the settings in its file.

What decides is the file alone, never the name of a tokenizer class: the scores of its pieces, their types (control,
user-defined, byte), whether a space is put before a text, what becomes of spaces, byte fallback. Rules of the
algorithm: sentencepiece's source, bpe_model.cc, unigram_model.cc and normalizer.cc.

One difference remains. Of two ways to write the same piece that overlap, sentencepiece takes the left one and the Rust
tokenizer the one with the shorter left half; runs of one character come out alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from hpcsft.errors import InputError

SPACE = "▁"
"""How a space is written in pieces."""

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of pieces, numbered as in sentencepiece's file and in GGUF's."""

UNIGRAM, BPE = 1, 2
"""Kinds of models, numbered as in sentencepiece's file."""


class Piece(NamedTuple):
    """An entry of the vocabulary; its id is its place."""

    text: str
    score: float
    type: int


@dataclass(frozen=True)
class SentencePieceModel:
    """A vocabulary and how texts are cut into it."""

    pieces: Sequence[Piece]
    bos: str | None
    eos: str | None
    unk: str | None
    kind: int = BPE
    add_dummy_prefix: bool = True
    """Put a space before a text."""
    remove_extra_whitespaces: bool = False
    """Take spaces away at both ends of a text, and all but one of several within."""
    charsmap: bytes = b""
    """sentencepiece's compiled rules for characters, empty for none."""

    def of_type(self, kind: int) -> list[str]:
        """The pieces of one type."""
        return [piece.text for piece in self.pieces if piece.type == kind]


def read_model(path: Path) -> SentencePieceModel:
    """The model in a sentencepiece file; needs protobuf. InputError if it is none, or wants what is not done here."""
    from google.protobuf.message import DecodeError
    from transformers.convert_slow_tokenizer import import_protobuf  # picks the schema for the protobuf installed

    proto = import_protobuf().ModelProto()
    content = path.read_bytes()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        proto.Clear()
    if not proto.pieces:
        hint = "a file in another format (tiktoken) needs a tokenizer.json beside it"
        if content.startswith(b"version https://git-lfs"):
            hint = "it only points at the file: git lfs pull"
        raise InputError(f"{path}: no sentencepiece model", hint)
    trained, rules = proto.trainer_spec, proto.normalizer_spec
    wrong = None
    if trained.model_type not in (BPE, UNIGRAM):
        wrong = "its pieces are whole words or characters"
    elif trained.treat_whitespace_as_suffix:
        wrong = "it puts spaces after words"
    elif not rules.escape_whitespaces:
        wrong = "its pieces hold real spaces"
    if wrong:
        raise InputError(f"{path}: {wrong}, which is not supported", "put a tokenizer.json beside it")
    pieces = [Piece(piece.piece, piece.score, piece.type) for piece in proto.pieces]
    types = {piece.text: piece.type for piece in pieces}
    named = {"bos": trained.bos_piece, "eos": trained.eos_piece}
    return SentencePieceModel(
        pieces,
        **{name: text if types.get(text) == CONTROL else None for name, text in named.items()},
        unk=next((piece.text for piece in pieces if piece.type == UNKNOWN), None),
        kind=trained.model_type,
        add_dummy_prefix=rules.add_dummy_prefix,
        remove_extra_whitespaces=rules.remove_extra_whitespaces,
        charsmap=rules.precompiled_charsmap,
    )


def build(model: SentencePieceModel, special: Sequence[AddedToken] = (), begin_anew: bool = False) -> Tokenizer:
    """The Rust tokenizer. Control pieces and those in `special` are special tokens, user-defined ones plain added ones.

    With `begin_anew`, text after a special token gets the space that a text begins with, as sentencepiece gives it to
    each of the texts between special tokens; else only the very start gets it.
    """
    tokenizer = Tokenizer(_bpe(model) if model.kind == BPE else _unigram(model))
    spaces: list[normalizers.Normalizer] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.remove_extra_whitespaces:
        ends = [normalizers.Replace(Regex(place), "") for place in (r"\A +", r" +\z")]
        spaces += [*ends, normalizers.Replace(Regex(" {2,}"), " ")]
    named = {token.content for token in special}
    user_defined = [text for text in model.of_type(USER_DEFINED) if text not in named]
    # What is user-defined cuts a text too, and sentencepiece puts no space after it. Where spaces are taken away,
    # the Rust tokenizer does not know the start of a text any more.
    everywhere = (begin_anew and not user_defined) or model.remove_extra_whitespaces
    if model.add_dummy_prefix and everywhere:
        spaces.append(normalizers.Prepend(SPACE))
    tokenizer.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", SPACE)])
    if model.add_dummy_prefix and not everywhere:
        tokenizer.pre_tokenizer = _space_at_the_start()
    tokenizer.decoder = _decoder(model)
    control = [text for text in [*model.of_type(UNKNOWN), *model.of_type(CONTROL)] if text not in named]
    tokenizer.add_special_tokens([*special, *(AddedToken(text, normalized=False, special=True) for text in control)])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in user_defined])
    return tokenizer


def merges_of(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, by the scores of what is made, the highest first.

    Only pieces of text take part: a control, byte or user-defined piece is never made of others.
    """
    ids = {piece.text: number for number, piece in enumerate(pieces) if piece.type in (NORMAL, UNUSED)}
    found: list[tuple[float, int, int, str, str]] = []
    for text, number in ids.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                found.append((-pieces[number].score, number, cut, left, right))
    found.sort()
    return [(left, right) for *_, left, right in found]


def _bpe(model: SentencePieceModel) -> models.BPE:
    vocabulary = {piece.text: number for number, piece in enumerate(model.pieces)}
    byte_fallback = BYTE in {piece.type for piece in model.pieces}
    return models.BPE(
        vocabulary, merges_of(model.pieces), unk_token=model.unk, fuse_unk=True, byte_fallback=byte_fallback
    )


def _unigram(model: SentencePieceModel) -> models.Unigram:
    """Pieces that no text is cut into are in the vocabulary too, less likely than any other way to write them."""
    least = min(piece.score for piece in model.pieces if piece.type == NORMAL)
    vocabulary = [
        (piece.text, least * (len(piece.text) + 1) if piece.type in (BYTE, UNUSED) else piece.score)
        for piece in model.pieces
    ]
    unknown = next((number for number, piece in enumerate(model.pieces) if piece.type == UNKNOWN), None)
    return models.Unigram(vocabulary, unknown, BYTE in {piece.type for piece in model.pieces})


def _space_at_the_start() -> pre_tokenizers.PreTokenizer:
    """One space before the very start, also before a text that begins with spaces.

    Metaspace leaves such a text alone if it begins with what Metaspace writes. By then spaces are written otherwise, so
    the first one, which writes a plain space, always does; the second writes it as the others are.
    """
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(" ", prepend_scheme="first", split=False),
            pre_tokenizers.Metaspace(SPACE, prepend_scheme="never", split=False),
        ]
    )


def _decoder(model: SentencePieceModel) -> decoders.Decoder:
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.add_dummy_prefix or model.remove_extra_whitespaces:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)
