"""What the files beside a vocabulary say about a tokenizer: special tokens, chat template, bos before a text."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from hpcsft.errors import InputError
from hpcsft.model_folder.reading import read_object

CONFIG = "tokenizer_config.json"
NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
"""What a special token can be named as."""
NEEDED = NAMES[:3]
"""Those that a tokenizer works with; the others only name tokens for whoever wants them."""


@dataclass
class TokenizerSettings:
    """The settings of a folder; what it leaves open is missing here."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """tokenizer_config.json."""
    named: dict[str, AddedToken] = field(default_factory=dict)
    """Special tokens by name. A token that is given as an empty text is not given."""
    special: dict[str, AddedToken] = field(default_factory=dict)
    """More special tokens, by their text."""
    added: dict[int, AddedToken] = field(default_factory=dict)
    """Tokens with ids of their own."""
    chat_template: str | dict[str, str] | None = None


def read_settings(folder: Path) -> TokenizerSettings:
    """From tokenizer_config.json, special_tokens_map.json, added_tokens.json and chat_template.jinja, as far as there.

    InputError for a file that is no JSON object.
    """
    values = read_object(folder / CONFIG, "tokenizer")
    settings = TokenizerSettings(values, chat_template=_chat_template(folder, values.get("chat_template")))
    later = values.get("added_tokens_decoder") or {}
    settings.added = {int(number): _token(value) for number, value in later.items()}
    others = {} if later else read_object(folder / "special_tokens_map.json", "tokenizer")  # as transformers reads them
    by_text = {token.content: token for token in settings.added.values()}
    for place in (values, others):
        for name in NAMES:
            token = _token(place.get(name))
            if token.content:
                settings.named[name] = by_text.get(token.content, token)
        for more in (place.get("additional_special_tokens"), place.get("extra_special_tokens")):
            tokens = map(_token, more.values() if isinstance(more, dict) else more or ())
            settings.special |= {token.content: token for token in tokens if token.content}
    settings.special |= {text: token for text, token in by_text.items() if token.special}
    for text, number in {} if later else read_object(folder / "added_tokens.json", "tokenizer").items():
        settings.added[number] = AddedToken(text, normalized=False)
    return settings


def wrap(backend: Tokenizer, settings: TokenizerSettings, place: Path, add_bos: bool | None = None) -> Any:
    """`backend` as transformers' fast tokenizer. Nothing is added to the vocabulary but what `settings` give an id.

    `add_bos` tells whether bos is put before a text where the settings do not say; None if `backend` knows.
    InputError, which names `place`, if bos, eos or unk are not in the vocabulary; other tokens are left out then.
    """
    from transformers import PreTrainedTokenizerFast

    for number, token in sorted(settings.added.items()):
        if backend.token_to_id(token.content) is None:
            backend.add_tokens([token])
        if backend.token_to_id(token.content) != number:
            raise InputError(f"{place}: the token '{token.content}' cannot have the id {number}", "download it again")
    named = {}
    for name, token in settings.named.items():
        if backend.token_to_id(token.content) is not None:
            named[name] = token.content
        elif name in NEEDED:
            raise InputError(f"{place}: {name} is '{token.content}', which the vocabulary lacks", _choice(backend))
    backend.add_special_tokens(special_tokens(settings, backend.get_vocab(with_added_tokens=True)))
    if add_bos is not None:
        _put_around(backend, settings.values, named, add_bos)
    longest = settings.values.get("model_max_length")
    special = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **named,
        extra_special_tokens=[text for text in special if text not in named.values()],
        chat_template=settings.chat_template,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **({"model_max_length": longest} if longest else {}),
    )


def special_tokens(settings: TokenizerSettings, vocabulary: Container[str]) -> list[AddedToken]:
    """The tokens of `vocabulary` that the settings make special.

    They are found in the text as it stands: `normalized`, which old files say, would look for a space before them.
    """
    tokens = {token.content: token for token in (*settings.special.values(), *settings.named.values())}
    return [
        AddedToken(text, lstrip=token.lstrip, rstrip=token.rstrip, normalized=False, special=True)
        for text, token in tokens.items()
        if text in vocabulary
    ]


def _put_around(backend: Tokenizer, values: Mapping[str, Any], named: Mapping[str, str], add_bos: bool) -> None:
    """Make `backend` put bos and eos around a text, as the settings say."""
    bos = named.get("bos_token") if values.get("add_bos_token", add_bos) else None
    eos = named.get("eos_token") if values.get("add_eos_token", False) else None
    if bos or eos:
        once = [*filter(None, [bos]), "$A", *filter(None, [eos])]
        backend.post_processor = processors.TemplateProcessing(
            single=once,
            pair=[*once, *(f"{part.replace('$A', '$B')}:1" for part in once)],
            special_tokens=[(text, backend.token_to_id(text)) for text in dict.fromkeys([bos, eos]) if text],
        )


def _choice(backend: Tokenizer) -> str:
    special = [token.content for token in backend.get_added_tokens_decoder().values() if token.special]
    return f"name another in {CONFIG}; its special tokens are: {', '.join(special[:12]) or 'none'}"


def _chat_template(folder: Path, value: Any) -> str | dict[str, str] | None:
    """Its own file wins, as for transformers; chat_template.json, which some folders have instead, comes last."""
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    value = value or read_object(folder / "chat_template.json", "tokenizer").get("chat_template")
    if isinstance(value, list):
        return {entry["name"]: entry["template"] for entry in value}
    return value


def _token(value: Any) -> AddedToken:
    """A token as text, as an object with its text, or not given."""
    if not isinstance(value, dict):
        return AddedToken(value or "", special=True)
    flags = {name: bool(value.get(name)) for name in ("single_word", "lstrip", "rstrip", "normalized")}
    return AddedToken(value.get("content") or "", special=value.get("special", True), **flags)
