"""Rows as a person can read them: token ids back to text, and which of it is learnt. Light.

Neighbouring tokens that are learnt alike make a run; a special token is a run of its own and shown by its name. Text
is decoded as it stands in its row, so runs joined are the row's text and no character is lost: one that is spread over
several runs belongs to the last of them, and one whose bytes a cut tore apart is shown as U+FFFD.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from hpcsft.data.shards import IGNORE_INDEX

TORN = "\ufffd"
"""What a decoder gives for bytes that are no whole character."""


class Run(NamedTuple):
    """Part of a row."""

    text: str
    learnt: bool
    special: bool


class RunReader:
    """Reads rows with the names of a fast tokenizer's special tokens."""

    def __init__(self, tokenizer: Any):
        self._backend = tokenizer.backend_tokenizer
        self._special = {number: str(t) for number, t in tokenizer.added_tokens_decoder.items() if t.special}

    def runs(self, input_ids: Sequence[int], labels: Sequence[int]) -> list[Run]:
        """The runs of one row."""
        runs: list[Run] = []
        text: list[tuple[bool, list[int]]] = []  # since the last special token
        before: list[int] = []  # that token
        for token, label in zip(input_ids, labels, strict=True):
            learnt, name = label != IGNORE_INDEX, self._special.get(token)
            if name is not None:
                runs += [*self._text_runs(before, text), Run(name, learnt, True)]
                before, text = [token], []
            elif text and text[-1][0] == learnt:
                text[-1][1].append(token)
            else:
                text.append((learnt, [token]))
        return runs + self._text_runs(before, text)

    def _text_runs(self, before: list[int], parts: Sequence[tuple[bool, list[int]]]) -> list[Run]:
        """The runs of text that stands after the tokens `before`."""
        runs = []
        context, told = before, len(self._decode(before))
        for number, (learnt, ids) in enumerate(parts, start=1):
            whole = self._decode(context + ids)
            ready = len(whole if number == len(parts) else whole.rstrip(TORN))
            if told < ready:
                runs.append(Run(whole[told:ready], learnt, False))
            alone = self._decode(ids)
            if ready == len(whole) and whole.endswith(alone):
                context, told = ids, len(alone)
            else:  # a character begins before `ids` or goes on after it
                context, told = context + ids, max(told, ready)
        return runs

    def _decode(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=False)


_HIDDEN = {"Cc", "Cf", "Zl", "Zp", "Cs", "Co"}
"""Unicode's categories of what a terminal would obey, or what does not show: control, format, separators, private."""

_JOINERS = {"\u200c", "\u200d"}
"""Of the category Cf, but part of how emoji and some scripts are written."""


def visible(text: str) -> str:
    """`text` with nothing in it that a terminal or a browser would obey: but for line ends and tabs, control characters
    become their pictures (ESC is U+241B) and invisible ones their numbers (<U+202E>)."""
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or character in _JOINERS or unicodedata.category(character) not in _HIDDEN:
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"
