"""The rows of the reference project, slow and plain: what `hpcsft.data.encode` must give, computed another way.

A row is bos + "User: " + text + eos as one string, then "\\nAssistant: " without loss, then text + eos with loss, then
"\\nUser: " + text + eos without loss, and so on; each of these strings is tokenized by itself. Its LlamaTokenizer began
anew after a special token, as legacy tokenizers do; so text and special tokens are tokenized apart here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from hpcsft.data.formats import Conversation, Turn

MASKED = -100


class Reference(NamedTuple):
    """What the model reads, and what it learns."""

    input_ids: list[int]
    labels: list[int]


def turns_of(texts: Sequence[str]) -> Conversation:
    """Texts by turns of the user and the assistant."""
    return [Turn("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]


def long_dialogs(conversations: Sequence[list[str]]) -> list[list[str]]:
    """Real conversations joined to dialogs of several exchanges, English, Chinese and mixed."""
    starts = range(0, len(conversations), 4)
    return [[text for texts in conversations[start : start + 4] for text in texts] for start in starts]


def reference_row(tokenizer: Any, texts: Sequence[str], learn: set[int] | None = None) -> Reference:
    """The row of a dialog; `learn` holds the exchanges that carry loss (None: all)."""
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    input_ids: list[int] = []
    labels: list[int] = []

    def add(text: str, learnt: bool) -> None:
        begins, ends = text.startswith(bos), text.endswith(eos)
        ids = tokenizer(text.removeprefix(bos).removesuffix(eos), add_special_tokens=False)["input_ids"]
        ids = [tokenizer.bos_token_id] * begins + ids + [tokenizer.eos_token_id] * ends
        input_ids.extend(ids)
        labels.extend(ids if learnt else [MASKED] * len(ids))

    for exchange in range(len(texts) // 2):
        question, answer = texts[2 * exchange : 2 * exchange + 2]
        add(("\n" if exchange else bos) + "User: " + question + eos, False)
        add("\nAssistant: ", False)
        add(answer + eos, learn is None or exchange in learn)
    return Reference(input_ids, labels)


def reference_parts(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[str]]:
    """The parts into which the reference project's splitter cuts a dialog, told as it works.

    Each text costs its tokens, with what the tokenizer adds of its own, and 6 more. Exchanges are collected; one that
    does not fit ends the part before it and begins the next. Only an exchange that fits and is the last one is written
    out together with what was collected.
    """
    parts: list[list[str]] = []
    collected: list[str] = []
    total = 0
    pairs = [list(texts[start : start + 2]) for start in range(0, len(texts), 2)]
    for place, pair in enumerate(pairs, start=1):
        cost = sum(len(tokenizer(text)["input_ids"]) + 6 for text in pair)
        if total + cost > max_length:
            parts.append(collected)
            collected, total = pair, cost
            continue
        collected, total = collected + pair, total + cost
        if place == len(pairs):
            parts.append(collected)
    return [part for part in parts if part]
