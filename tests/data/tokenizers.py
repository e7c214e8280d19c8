"""Small real tokenizers of the kinds that models have, and chat templates in the style of those that they come with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

Kind = Literal["sentencepiece", "sentencepiece-legacy", "byte-level"]

KINDS: tuple[Kind, ...] = ("sentencepiece", "sentencepiece-legacy", "byte-level")

SPECIAL = (
    *("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"),
)
"""Special tokens of every tokenizer here; <s> begins a text, </s> ends it."""

TAKING = ("<|user|>", "<|assistant|>", "<|end|>")
"""More of them, which take the whitespace after them away; <|end|> also that before it."""

THINKING = ("<think>", "</think>")
"""Added tokens that are not special: any text may hold them."""

BYTES = [f"<0x{number:02X}>" for number in range(256)]


def train_tokenizer(kind: Kind, texts: Iterable[str], chat_template: str | None = None) -> Any:
    """A fast tokenizer trained on `texts` in a moment, with `chat_template` as its own.

    sentencepiece           BPE with byte fallback; a space before the very start of a text only
    sentencepiece-legacy    the same, with a space before whatever follows a special token too
    byte-level              byte-level BPE
    """
    tokenizer = _train_byte_level(texts) if kind == "byte-level" else _train_sentencepiece(texts)
    if kind == "sentencepiece-legacy":
        tokenizer.pre_tokenizer = None
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens(
        [AddedToken(text, rstrip=True, lstrip=text == "<|end|>", special=True) for text in TAKING]
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in THINKING])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = chat_template
    return fast


def _train_byte_level(texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train_sentencepiece(texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=[*SPECIAL, *BYTES], limit_alphabet=300, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    settings = json.loads(tokenizer.to_str())  # the trainer knows bytes only as special tokens, which they are not
    settings["added_tokens"] = [token for token in settings["added_tokens"] if token["content"] not in BYTES]
    return Tokenizer.from_str(json.dumps(settings))


CHAT_TEMPLATES: dict[str, str] = {
    "chatml with a system turn of its own": (
        "{% for message in messages %}"
        "{% if loop.first and message.role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
        "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "llama 2": (
        "{% if messages[0]['role'] == 'system' %}"
        "{% set turns = messages[1:] %}{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
        "{% else %}{% set turns = messages %}{% set system = '' %}{% endif %}"
        "{% for message in turns %}"
        "{% if loop.first %}{% set text = system + message.content %}{% else %}{% set text = message.content %}"
        "{% endif %}"
        "{% if message.role == 'user' %}{{ bos_token + '(INST) ' + text.strip() + ' (/INST)' }}"
        "{% else %}{{ ' ' + text.strip() + ' ' + eos_token }}{% endif %}"
        "{% endfor %}"
    ),
    "llama 3": (
        "{{ bos_token }}"
        "{% for message in messages %}"
        "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}"
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}"
        "{% set role = 'model' if message.role == 'assistant' else message.role %}"
        "{{ '<start_of_turn>' + role + '\n' + message.content | trim + '<end_of_turn>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "mistral": (
        "{% if messages[0].role == 'system' %}"
        "{% set system = messages[0].content %}{% set turns = messages[1:] %}"
        "{% else %}{% set turns = messages %}{% endif %}"
        "{{ bos_token }}"
        "{% for message in turns %}"
        "{% if message.role == 'user' %}"
        "{% if loop.index0 >= turns | length - 2 and system is defined %}"
        "{{ '[INST] ' + system + '\n\n' + message.content + '[/INST]' }}"
        "{% else %}{{ '[INST] ' + message.content + '[/INST]' }}{% endif %}"
        "{% else %}{{ ' ' + message.content + eos_token }}{% endif %}"
        "{% endfor %}"
    ),
    "qwen 3": (
        "{% set last = namespace(user=0) %}"
        "{% for message in messages %}{% if message.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}"
        "{% endfor %}"
        "{% for message in messages %}"
        "{% set content = message.content %}"
        "{% if message.role == 'assistant' %}"
        "{% if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "{{ '<|im_start|>assistant\n' }}"
        "{% if loop.index0 > last.user %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{{ content.lstrip('\n') + '<|im_end|>\n' }}"
        "{% else %}{{ '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "phi 3": (
        "{% for message in messages %}"
        "{% if message.role == 'system' %}{{ message.content + '<|end|>\n' }}"
        "{% else %}{{ '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    ),
    "vicuna": (
        "{% for message in messages %}"
        "{% if message.role == 'system' %}{{ message.content + '\n\n' }}"
        "{% elif message.role == 'user' %}{{ 'USER: ' + message.content + '\n' }}"
        "{% else %}{{ 'ASSISTANT: ' + message.content + eos_token }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    ),
}
"""In the style of the templates that they are named after."""
