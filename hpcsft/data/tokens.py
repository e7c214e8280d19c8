"""Texts to token ids, at the speed of the Rust tokenizer: many texts at once, each different one only once.

A special token that a text spells is data, never control: the tokenizers here are copies that spell it out.
"""

from __future__ import annotations

import functools
import itertools
import json
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from hpcsft.data.pieces import Piece
from hpcsft.errors import StageError

_UNSPELLABLE = "\uffff" + secrets.token_hex(8)
"""What no text can hold."""


class TextEncoder:
    """The Rust tokenizer behind a Hugging Face fast tokenizer, for text alone: it adds no special tokens.

    StageError for a tokenizer that finds special tokens in texts all the same.
    """

    def __init__(self, tokenizer: Any):
        self._backend = _without_control(tokenizer.backend_tokenizer.to_str(), tokenizer.all_special_tokens)
        self._whole = _for_text(self._backend)
        self._check(tokenizer)
        self.num_added: int = tokenizer.num_special_tokens_to_add()
        """Special tokens that the tokenizer puts around a text of its own accord."""

    def encode(self, texts: Sequence[str], inner: bool = False) -> list[Encoding]:
        """Tokens of each text. An `inner` text goes on from what precedes it: sentencepiece puts no space before it."""
        return (self._inner if inner else self._whole).encode_batch_fast(list(texts), add_special_tokens=False)

    def _check(self, tokenizer: Any) -> None:
        special = tokenizer.all_special_tokens
        for text, number, encoding in zip(special, tokenizer.all_special_ids, self.encode(special), strict=True):
            if number in encoding.ids and text != tokenizer.unk_token:
                hint = "a user's text that spells it would end a turn; use another version of the model's tokenizer"
                raise StageError(f"the tokenizer reads '{text}' in a text as its control token", hint)

    @functools.cached_property
    def _inner(self) -> Tokenizer:
        return _for_text(_without_prefix_space(self._backend))


class TokenTable:
    """Token ids of pieces, end to end, each different piece once. Entry i is `lengths[i]` tokens long."""

    def __init__(self, encoder: TextEncoder):
        self.encoder = encoder
        self.lengths: list[int] = []
        self._entries: dict[tuple[str | int, bool], int] = {}
        self._ids: list[np.ndarray] = []

    def add(self, pieces: Iterable[Piece]) -> None:
        """Tokenize the pieces that are not there yet, in one batch."""
        wanted = dict.fromkeys((piece.content, piece.inner) for piece in pieces)
        new = [key for key in wanted if key not in self._entries]
        special = [key for key in new if isinstance(key[0], int)]
        self._append(special, [1] * len(special), (number for number, _ in special))
        for inner in (False, True):
            texts = [key for key in new if key[1] is inner and isinstance(key[0], str)]
            if not texts:
                continue
            encodings = self.encoder.encode([text for text, _ in texts], inner)
            ids = itertools.chain.from_iterable(encoding.ids for encoding in encodings)
            self._append(texts, [len(encoding) for encoding in encodings], ids)

    def entries(self, pieces: Sequence[Piece]) -> list[int]:
        """The entries of pieces that were added."""
        found = self._entries
        return [found[piece.content, piece.inner] for piece in pieces]

    def measure(self, pieces: Sequence[Piece]) -> list[int] | None:
        """Number of tokens of each of some pieces, None if one of them was never added."""
        found = self._entries
        entries = [found.get((piece.content, piece.inner)) for piece in pieces]
        return None if None in entries else [self.lengths[entry] for entry in entries]

    def flat(self) -> tuple[np.ndarray, np.ndarray]:
        """(ids int32 of all entries end to end, int64 place in it where each entry begins)."""
        lengths = np.asarray(self.lengths, dtype=np.int64)
        return np.concatenate([np.zeros(0, np.int32), *self._ids]), np.cumsum(lengths) - lengths

    def _append(self, keys: list[tuple[str | int, bool]], lengths: list[int], ids: Iterable[int]) -> None:
        self._entries.update(zip(keys, itertools.count(len(self.lengths)), strict=False))
        self._ids.append(np.fromiter(ids, np.int32, sum(lengths)))
        self.lengths += lengths


def _for_text(backend: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(backend)
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _without_control(backend: str, special: Sequence[str]) -> str:
    """The same tokenizer, in whose vocabulary no text finds a special token.

    A Unigram model takes the likeliest pieces of its vocabulary, whatever they mean: there special tokens are spelled
    otherwise.
    """
    settings = json.loads(backend) if '"Unigram"' in backend else {"model": {"type": None}}
    model = settings["model"]
    if model["type"] != "Unigram":
        return backend
    hidden = {piece for piece, _ in model["vocab"]}.intersection(special)
    model["vocab"] = [[_UNSPELLABLE + piece if piece in hidden else piece, score] for piece, score in model["vocab"]]
    settings["added_tokens"] = [token for token in settings["added_tokens"] if token["content"] not in hidden]
    settings["post_processor"] = None
    return json.dumps(settings)


def _without_prefix_space(backend: str) -> str:
    """The same tokenizer for text in the middle of a string: without what it does to the start of a text."""

    def of_the_start(node: Any) -> bool:
        if not isinstance(node, dict):
            return False
        pattern = node.get("pattern")
        return node.get("type") == "Prepend" or (isinstance(pattern, dict) and "\\A" in pattern.get("Regex", ""))

    def changed(node: Any) -> Any:
        if isinstance(node, list):
            return [changed(item) for item in node if not of_the_start(item)]
        if not isinstance(node, dict):
            return node
        fixed = {name: changed(value) for name, value in node.items()}
        if "prepend_scheme" in fixed:
            fixed["prepend_scheme"] = "never"
        if fixed.get("type") == "ByteLevel":
            fixed["add_prefix_space"] = False
        if fixed.get("type") == "Strip":
            fixed["strip_left"] = False
        return fixed

    settings = json.loads(backend)
    for part in ("normalizer", "pre_tokenizer"):
        node = settings.get(part)
        settings[part] = None if node and node["type"] == "Prepend" else changed(node)
    return json.dumps(settings)
