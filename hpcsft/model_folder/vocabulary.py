"""What the files of a tokenizer tell: how many tokens there are, and is there one that ends a text.

By the rules of hpcsft.models.tokenizer, as far as they need no tokenizer class.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcsft.errors import InputError
from hpcsft.model_folder.gguf import Gguf, read_gguf
from hpcsft.model_folder.reading import read_object
from hpcsft.model_folder.sentencepiece import read_sentencepiece

WHOLE = ("tokenizer.json", "tokenizer.model")
"""Tokenizers that need no class which knows more about them."""
FILES = (*WHOLE, "vocab.json")
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""They know no eos but the one that they are told."""
USUAL_EOS = {"</s>", "<|endoftext|>", "<eos>"}
"""What other classes take for it if nothing names another."""
NOT_TEXT = ("image_token", "video_token", "audio_token")
"""Tokens that a tokenizer has for the models that see or hear and share it."""
OTHERS = "tokenizer and weights are of different models, or tokens were added and the embedding was not resized"
NAME_ONE = 'name one in tokenizer_config.json, as in "eos_token": "</s>"'


def has_tokenizer(folder: Path) -> bool:
    """Is there one in a file of its own?"""
    return any(os.path.exists(folder / name) for name in FILES)


def check_tokenizer(folder: Path, rows: int | None) -> None:
    """InputError if there is no tokenizer, if it has more tokens than the embedding has rows, or if it has no eos."""
    if not has_tokenizer(folder):
        raise InputError(f"{folder}: no tokenizer inside", "expected tokenizer.json or tokenizer.model")
    settings = _object(folder, "tokenizer_config.json")
    tokens = dict(_tokens(folder, settings))
    others = _not_text(settings)
    ids = [number for text, number in tokens.items() if text not in others]
    _check_size(folder, 1 + max(ids, default=-1), rows)
    if any((folder / name).exists() for name in WHOLE):
        _check_eos(folder, settings, tokens)


def has_chat_template(folder: Path) -> bool:
    """Has the tokenizer in `folder` a chat template, wherever it is kept? False, too, where that cannot be read."""
    if os.path.exists(folder / "chat_template.jinja"):
        return True
    with contextlib.suppress(InputError):
        if any(_object(folder, name).get("chat_template") for name in ("tokenizer_config.json", "chat_template.json")):
            return True
        if not has_tokenizer(folder):
            return any("tokenizer.chat_template" in read_gguf(file).fields for file in folder.glob("*.gguf"))
    return False


def check_gguf_tokenizer(gguf: Gguf, file: Path, rows: int | None) -> None:
    """The same for the tokenizer in a GGUF file."""
    tokens = gguf.fields.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list):
        raise InputError(f"{file}: no tokenizer inside, nor beside it", "put the model's tokenizer.json beside it")
    _check_size(file, len(tokens), rows)
    if gguf.fields.get("tokenizer.ggml.eos_token_id") is None:
        raise _no_eos(file)


def _check_size(place: Path, count: int, rows: int | None) -> None:
    if rows is not None and count > rows:
        raise InputError(f"{place}: the tokenizer has {count:,} tokens, the embedding {rows:,} rows", OTHERS)


def _check_eos(folder: Path, settings: Mapping[str, Any], tokens: Mapping[str, int]) -> None:
    others = {} if settings.get("added_tokens_decoder") else _object(folder, "special_tokens_map.json")
    named = _text(settings.get("eos_token")) or _text(others.get("eos_token"))
    if not named and not _others_name_eos(folder, settings, tokens):
        raise _no_eos(folder)
    if named and named not in tokens:
        raise InputError(f"{folder}: eos_token is '{named}', which the vocabulary lacks", NAME_ONE)


def _others_name_eos(folder: Path, settings: Mapping[str, Any], tokens: Mapping[str, int]) -> bool:
    """Is there a tokenizer.model that does, or a class that may take one of the tokens for it?"""
    if (folder / "tokenizer.model").exists():
        return read_sentencepiece(folder / "tokenizer.model").eos is not None
    return settings.get("tokenizer_class") not in PLAIN_CLASSES and bool(USUAL_EOS & tokens.keys())


def _no_eos(place: Path) -> InputError:
    return InputError(f"{place}: the tokenizer has no eos token, which ends an answer", NAME_ONE)


def _tokens(folder: Path, settings: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Tokens and their ids."""
    if not (folder / "tokenizer.json").exists() and (folder / "tokenizer.model").exists():
        yield from read_sentencepiece(folder / "tokenizer.model").texts.items()
    document = _object(folder, "tokenizer.json")
    model, added, later = document.get("model"), document.get("added_tokens"), settings.get("added_tokens_decoder")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):  # of a Unigram model: pieces and scores
        yield from ((str(entry[0]), number) for number, entry in enumerate(vocabulary) if isinstance(entry, list))
    places = [vocabulary, {} if document else _object(folder, "vocab.json")]
    places.append({} if later else _object(folder, "added_tokens.json"))
    for values in places:
        if isinstance(values, dict):
            yield from ((text, number) for text, number in values.items() if isinstance(number, int))
    for entry in added if isinstance(added, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("id"), int):
            yield _text(entry), entry["id"]
    for number, entry in later.items() if isinstance(later, dict) else []:
        if number.isdigit():
            yield _text(entry), int(number)


def _not_text(settings: Mapping[str, Any]) -> set[str]:
    places = (settings, settings.get("extra_special_tokens"))
    return {_text(place.get(name)) for place in places if isinstance(place, dict) for name in NOT_TEXT} - {""}


def _text(token: object) -> str:
    """A token as the settings write it: as text, or as an object with its text."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _object(folder: Path, name: str) -> dict[str, Any]:
    return read_object(folder / name, "tokenizer")
