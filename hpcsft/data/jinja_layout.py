"""What a chat template writes around the texts of turns, known exactly because it was rendered around markers.

The template is rendered with a marker in place of each turn's text; no text can hold a marker, so what stands between
two of them is the template's own. Whether it strips the texts shows when the markers are padded with whitespace: hence
three renders of everything. What is rendered to ask for an answer is the start of the render of the whole
conversation, or else the answer's boundary is not exact and the answer is none to learn from.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hpcsft.data.formats import Conversation
from hpcsft.data.pieces import Piece
from hpcsft.data.special_tokens import SpecialToken, SpecialTokens

_SECRET = "q" + secrets.token_hex(8)
_MARKER = re.compile(f"{_SECRET}(\\d+)z")

PADDINGS = (("", ""), (" ", "\n"), ("\n", " "))
"""Before and after the markers, in each of the renders. Two kinds, since templates strip newlines, spaces or both."""

_WHITESPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""What the Rust tokenizer takes for whitespace; Python's own idea has four control characters more."""


def marker(turn: int) -> str:
    """What stands for the text of a turn."""
    return f"{_SECRET}{turn}z"


class Slot(NamedTuple):
    """Where the text of a turn stands."""

    turn: int
    left: str | None
    """What the template strips from its start: characters, or None for all whitespace."""
    right: str | None

    def text(self, turns: Conversation) -> str:
        """The text as the template writes it."""
        return turns[self.turn].text.lstrip(self.left).rstrip(self.right)


class TextPart(NamedTuple):
    """What is tokenized as one text."""

    items: tuple[str | Slot, ...]
    answer: int | None
    taken_after: bool
    """A special token follows that takes the whitespace before it away."""


class TokenPart(NamedTuple):
    """One special token."""

    token: SpecialToken
    answer: int | None


@dataclass(frozen=True)
class Layout:
    """What a template makes of turns of certain roles."""

    renders: tuple[str, ...] = ("",) * len(PADDINGS)
    parts: tuple[TextPart | TokenPart, ...] = ()
    items: tuple[str | Slot, ...] = ()
    """The render, unpadded, as what the template writes and where texts stand."""
    answers: tuple[int, ...] = ()
    """The answers whose boundaries are exact."""
    end: int | None = None
    """The token that ends the last of them."""

    def precedes(self, renders: Sequence[str]) -> bool:
        """Is this the start of `renders`?"""
        return all(render.startswith(start) for render, start in zip(renders, self.renders, strict=True))

    def extended(self, renders: tuple[str, ...], answer: int | None, tokens: SpecialTokens, end: int | None) -> Layout:
        """This layout, which precedes `renders`, with what follows: `answer` up to a special token, and all else.

        The answer is learnt if its text alone stands before the next special token, and that one is `end` (any if
        None).
        """
        flow: list[str | Slot | SpecialToken] = []
        items = list(self.items)
        for item in _split([render[len(start) :] for render, start in zip(renders, self.renders, strict=True)]):
            flow += tokens.cut(item) if isinstance(item, str) else [item]
            items.append(item)
        last = _end_of(answer, flow)
        if last is None or end not in (None, flow[last].id):
            return Layout(renders, self.parts + tuple(_parts(flow, None)), tuple(items), self.answers, self.end)
        parts = (*self.parts, *_parts(flow[: last + 1], answer), *_parts(flow[last + 1 :], None))
        return Layout(renders, parts, tuple(items), (*self.answers, answer), flow[last].id)

    def render(self, turns: Conversation) -> str:
        """The text that the template should make of `turns`."""
        return "".join([item if type(item) is str else item.text(turns) for item in self.items])

    def pieces(self, turns: Conversation, goes_on: bool) -> list[Piece]:
        """`turns` as pieces. Does text go on after a special token (`goes_on`), or begin anew?"""
        pieces: list[Piece] = []
        inner = taken = False
        for part in self.parts:
            if type(part) is TokenPart:
                pieces.append(Piece(part.token.id, part.answer))
                inner, taken = goes_on, part.token.takes_after
                continue
            text = "".join([item if type(item) is str else item.text(turns) for item in part.items])
            if taken:
                text = text.lstrip(_WHITESPACE)
            if part.taken_after:
                text = text.rstrip(_WHITESPACE)
            if text:
                pieces.append(Piece(text, part.answer, inner))
                inner, taken = True, False
        return pieces


def _split(renders: Sequence[str]) -> Iterator[str | Slot]:
    """What stands between markers, and what stands for these."""
    plain, *padded = [_MARKER.split(render) for render in renders]
    numbers = plain[1::2]
    kept: dict[tuple[int, bool], str] = {}  # (number of the marker, is it on its left) -> whitespace that stays there
    for (left, right), fragments in zip(PADDINGS[1:], padded, strict=True):
        for place, literal in enumerate(plain[::2]):
            same = fragments[1::2] == numbers
            after, before = _padding(literal, fragments[2 * place], right, left) if same else (True, True)
            kept[place - 1, False] = kept.get((place - 1, False), "") + right * after
            kept[place, True] = kept.get((place, True), "") + left * before
    for place, literal in enumerate(plain[::2]):
        if literal:
            yield literal
        if place < len(numbers):
            yield Slot(int(numbers[place]), _stripped(kept[place, True]), _stripped(kept[place, False]))


def _padding(literal: str, padded: str, after: str, before: str) -> tuple[bool, bool]:
    """Which padding stands around `literal`: (that after the marker before it, that before the marker after it).

    At most one answer fits, since the two differ. If the template does something else, let both stay: whether a
    text comes out unchanged is checked for every conversation anyway.
    """
    ways = ((False, False), (True, False), (False, True), (True, True))
    fits = [way for way in ways if after * way[0] + literal + before * way[1] == padded]
    return fits[0] if fits else (True, True)


def _stripped(kept: str) -> str | None:
    """What is stripped where `kept` stays of a space and a newline."""
    return None if not kept else "".join({" ", "\n"} - set(kept))


def _end_of(answer: int | None, flow: Sequence[str | Slot | SpecialToken]) -> int | None:
    """The place in `flow` of the first special token after the text of `answer`; None if its boundaries are blurred."""
    first = next((place for place, item in enumerate(flow) if isinstance(item, Slot) and item.turn == answer), None)
    if first is None:
        return None
    last = next((place for place in range(first, len(flow)) if isinstance(flow[place], SpecialToken)), None)
    if last is None or sum(isinstance(item, Slot) for item in flow[:last]) != 1:
        return None
    return last


def _parts(flow: Sequence[str | Slot | SpecialToken], answer: int | None) -> Iterator[TextPart | TokenPart]:
    """`flow` with neighbouring texts joined."""
    texts: list[str | Slot] = []
    for item in flow:
        if not isinstance(item, SpecialToken):
            texts.append(item)
            continue
        if texts:
            yield TextPart(tuple(texts), answer, item.takes_before)
            texts = []
        yield TokenPart(item, answer)
    if texts:
        yield TextPart(tuple(texts), answer, False)
