"""Special tokens in the text that a template writes, found as the Rust tokenizer finds them."""

from __future__ import annotations

import re
from typing import Any, NamedTuple


class SpecialToken(NamedTuple):
    """A special token, and whether it takes the whitespace next to it away (`lstrip` and `rstrip` of AddedToken)."""

    id: int
    text: str
    takes_before: bool
    takes_after: bool


class SpecialTokens:
    """Those of a fast tokenizer."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._by_text = {
            token.content: SpecialToken(number, token.content, token.lstrip, token.rstrip)
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.special and token.content
        }
        longest_first = sorted(self._by_text, key=len, reverse=True)
        self._pattern = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")

    def cut(self, text: str) -> list[str | SpecialToken]:
        """`text` as what stands between special tokens, and these; the longest match counts."""
        fragments = self._pattern.split(text)
        return [self._by_text[part] if place % 2 else part for place, part in enumerate(fragments) if part]


def goes_on_after(tokenizer: Any, special: int) -> bool:
    """Does text go on after the token `special`, or does the tokenizer begin it as if it stood alone?

    Legacy sentencepiece tokenizers put a space before the text that follows any special token; later ones put it at the
    very start of a string only, byte-level ones nowhere.
    """
    alone = _tokens(tokenizer, "x")
    return alone == ["x"] or _tokens(tokenizer, tokenizer.convert_ids_to_tokens(special) + "x")[1:] != alone


def _tokens(tokenizer: Any, text: str) -> list[str]:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]
    return tokenizer.convert_ids_to_tokens(ids)
