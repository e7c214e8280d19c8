"""A tokenizer.model of sentencepiece: how many pieces, and is there one that ends a text.

The file is a protobuf message, of which a few fields are read here by hand (sentencepiece_model.proto).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hpcsft.errors import InputError
from hpcsft.model_folder.reading import not_whole

PIECE, TRAINER = 1, 2
"""Fields of the model."""
TEXT, KIND = 1, 3
"""Fields of a piece."""
CONTROL = 3
"""The kind of a piece that no text is cut into."""
FIXED = {1: 8, 5: 4}
"""Bytes of numbers, by the kind of a field."""
EOS_PIECE = 47
"""Field of the trainer's settings."""


class SentencePiece(NamedTuple):
    """What the file tells."""

    texts: dict[str, int]
    """Of the pieces, with their ids."""
    has_eos: bool


def read_sentencepiece(file: Path) -> SentencePiece:
    """InputError if the file is of another kind or not whole."""
    try:
        data = file.read_bytes()
        if data[:1] != b"\x0a" and data[:7] != b"version":  # the first is a piece, the second a pointer of git-lfs
            hint = "a file in another format (tiktoken) needs a tokenizer.json beside it"
            raise InputError(f"{file}: no sentencepiece model", hint)
        texts: dict[str, int] = {}
        control: set[str] = set()
        eos = b"</s>"
        for field, value in _fields(data):
            if field == PIECE:
                piece = dict(_fields(value))
                text = piece[TEXT].decode("utf-8")
                texts[text] = len(texts)
                if piece.get(KIND) == CONTROL:
                    control.add(text)
            elif field == TRAINER:
                eos = dict(_fields(value)).get(EOS_PIECE, eos)
        if not texts:
            raise ValueError("no pieces")
        return SentencePiece(texts, eos.decode("utf-8") in control)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise not_whole(file, "sentencepiece") from None


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
