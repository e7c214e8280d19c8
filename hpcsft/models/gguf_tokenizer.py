"""The tokenizer in a GGUF file, as the model's own tokenizer.json has it.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The file tells how a text is cut into words
only by a name, `tokenizer.ggml.pre`. A name that is not known here is refused: another way would give other tokens,
without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from hpcsft.errors import InputError
from hpcsft.model_folder.gguf import read_gguf
from hpcsft.model_folder.sentencepiece import CONTROL, NORMAL, USER_DEFINED, Piece, SentencePieceModel
from hpcsft.models.sentencepiece_file import build
from hpcsft.models.tokenizer_settings import TokenizerSettings, special_tokens

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = {
    "llama-bpe": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{REST}",
    "qwen2": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{REST}",
    "deepseek-r1-qwen": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{REST}",
}
"""What cuts a text into words, by the name that llama.cpp gives it: as in the tokenizer.json of Llama 3 and Qwen2."""
NAMES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
INSTEAD = "put the model's tokenizer.json beside it"


def read_gguf_tokenizer(file: Path, settings: TokenizerSettings) -> tuple[Tokenizer, bool]:
    """(the tokenizer, does it put bos before a text). `settings` get what they lack: names, chat template.

    InputError for a kind of tokenizer that is not supported.
    """
    field = _fields(file)
    tokens = field.get("tokens", [])
    for name, theirs in NAMES.items():
        number = field.get(f"{theirs}_token_id")
        if number is not None and number < len(tokens):
            settings.named.setdefault(name, AddedToken(tokens[number], special=True))
    settings.chat_template = settings.chat_template or field.get("chat_template")
    special = special_tokens(settings, set(tokens))
    kind, architecture = field.get("model"), str(field.get("architecture"))
    if kind == "llama" and not architecture.startswith("gemma"):  # whose scores are no order of merges
        return build(_pieces(field), special, begin_anew=True), bool(field.get("add_bos_token", True))
    if kind == "gpt2":
        return _byte_level(field, special, file), bool(field.get("add_bos_token", False))
    raise InputError(f"{file}: tokenizers of this kind are not read from GGUF files: {architecture}, {kind}", INSTEAD)


def _fields(file: Path) -> dict[str, Any]:
    """What the file says about the tokenizer, without the keys' `tokenizer.ggml.`; and `architecture`."""
    wanted = ("tokenizer.", "general.architecture")
    fields = read_gguf(file).fields
    return {name.rpartition(".")[2]: value for name, value in fields.items() if name.startswith(wanted)}


def _pieces(field: Mapping[str, Any]) -> SentencePieceModel:
    pieces = [Piece(*entry) for entry in zip(field["tokens"], field["scores"], field["token_type"], strict=True)]
    return SentencePieceModel(
        pieces,
        add_dummy_prefix=bool(field.get("add_space_prefix", True)),
        remove_extra_whitespaces=bool(field.get("remove_extra_whitespaces", False)),
        charsmap=bytes(field.get("precompiled_charsmap", ())),
    )


def _byte_level(field: Mapping[str, Any], special: list[AddedToken], file: Path) -> Tokenizer:
    """The tokenizers of Llama 3, Qwen2, Qwen3, SmolLM2 and GPT-2."""
    name = field.get("pre", "gpt-2")
    if name in WORDS:
        first = pre_tokenizers.Split(Regex(WORDS[name]), behavior="isolated")
    elif name == "smollm":
        first = pre_tokenizers.Digits(individual_digits=True)
    elif name == "gpt-2":
        first = None
    else:
        raise InputError(f"{file}: its tokenizer cuts words in a way that is not known here: {name}", INSTEAD)
    merges = [tuple(merge.split(" ")) for merge in field["merges"]]
    vocabulary = {token: number for number, token in enumerate(field["tokens"])}
    # Llama 3 takes a word that is in the vocabulary whole, also where no merges lead there
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=name == "llama-bpe"))
    if name in ("qwen2", "deepseek-r1-qwen"):
        tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name not in WORDS)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, words]) if first else words
    tokenizer.decoder = decoders.ByteLevel()
    named = {token.content for token in special}
    marked = list(zip(field["tokens"], field.get("token_type", [NORMAL] * len(vocabulary)), strict=True))
    control = [text for text, kind in marked if kind == CONTROL and text not in named]
    tokenizer.add_special_tokens([*special, *(AddedToken(text, normalized=False, special=True) for text in control)])
    plain = [text for text, kind in marked if kind == USER_DEFINED and text not in named]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in plain])
    return tokenizer
