"""A tokenizer.model of sentencepiece: its pieces, and how texts are cut into them.

The file is a protobuf message, of which a few fields are read here by hand, so that a login node can do it, too.
Numbers of fields and what holds where one is missing: sentencepiece's source, sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hpcsft.errors import InputError
from hpcsft.model_folder.reading import POINTER, not_whole

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of pieces, numbered as in the file and in GGUF files."""

UNIGRAM, BPE = 1, 2
"""Kinds of models, numbered as in the file."""

PIECE, TRAINER, NORMALIZER = 1, 2, 3
"""Fields of the file."""
TEXT, SCORE, TYPE = 1, 2, 3
"""Fields of a piece."""
KIND, SUFFIX, BOS, EOS = 3, 24, 46, 47
"""Fields of the trainer's settings."""
CHARSMAP, PREFIX, EXTRA, ESCAPE = 2, 3, 4, 5
"""Fields of the normalizer's settings."""

FIXED = {1: 8, 5: 4}
"""Bytes of numbers, by the wire type of a field."""
FLOAT = struct.Struct("<f")
INSTEAD = "a file in another format (tiktoken) needs a tokenizer.json beside it"


class Piece(NamedTuple):
    """An entry of the vocabulary; its id is its place."""

    text: str
    score: float
    type: int


@dataclass(frozen=True)
class SentencePieceModel:
    """A vocabulary and how texts are cut into it."""

    pieces: Sequence[Piece]
    bos: str | None = None
    eos: str | None = None
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

    @property
    def unk(self) -> str | None:
        """The piece for what no other can write."""
        return next(iter(self.of_type(UNKNOWN)), None)

    @property
    def texts(self) -> dict[str, int]:
        """Of the pieces, with their ids."""
        return {piece.text: number for number, piece in enumerate(self.pieces)}


def read_sentencepiece(file: Path) -> SentencePieceModel:
    """InputError if the file is of another kind, is not whole, or wants what `models.sentencepiece_file` lacks."""
    try:
        data = file.read_bytes()
        if not data.startswith((b"\x0a", POINTER)):  # the first is a piece
            raise InputError(f"{file}: no sentencepiece model", INSTEAD)
        pieces: list[Piece] = []
        trained: dict[int, Any] = {}
        rules: dict[int, Any] = {}
        for field, value in _fields(data):
            if field == PIECE:
                pieces.append(_piece(dict(_fields(value))))
            elif field in (TRAINER, NORMALIZER):
                (trained if field == TRAINER else rules).update(_fields(value))
        _check_kind(file, trained, rules)
        control = {piece.text for piece in pieces if piece.type == CONTROL}
        named = [trained.get(field, usual).decode("utf-8") for field, usual in ((BOS, b"<s>"), (EOS, b"</s>"))]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error):
        raise not_whole(file, "sentencepiece") from None
    return SentencePieceModel(
        pieces,
        *(text if text in control else None for text in named),
        kind=trained.get(KIND, UNIGRAM),
        add_dummy_prefix=bool(rules.get(PREFIX, True)),
        remove_extra_whitespaces=bool(rules.get(EXTRA, True)),
        charsmap=rules.get(CHARSMAP, b""),
    )


def _check_kind(file: Path, trained: Mapping[int, Any], rules: Mapping[int, Any]) -> None:
    wrong = None
    if trained.get(KIND, UNIGRAM) not in (BPE, UNIGRAM):
        wrong = "its pieces are whole words or characters"
    elif trained.get(SUFFIX):
        wrong = "it puts spaces after words"
    elif not rules.get(ESCAPE, True):
        wrong = "its pieces hold real spaces"
    if wrong:
        raise InputError(f"{file}: {wrong}, which is not supported", "put a tokenizer.json beside it")


def _piece(field: dict[int, Any]) -> Piece:
    (score,) = FLOAT.unpack(field[SCORE]) if SCORE in field else (0.0,)
    return Piece(field[TEXT].decode("utf-8"), score, field.get(TYPE, NORMAL))


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a message; an int, or bytes."""
    position, end = 0, len(data)
    while position < end:
        key, position = _number(data, position)
        kind = key & 7
        if kind == 0:
            value, position = _number(data, position)
            yield key >> 3, value
        else:
            if kind == 2:
                length, position = _number(data, position)
            else:
                length = FIXED[kind]
            start, position = position, position + length
            if position > end:
                raise ValueError("cut off")
            yield key >> 3, data[start:position]


def _number(data: bytes, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    number = data[position]
    if number < 0x80:
        return number, position + 1
    number, shift = 0, 0
    while True:
        byte = data[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return number, position
