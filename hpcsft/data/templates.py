"""How turns become pieces of text, and which of them carry loss. Pure.

A piece is either text, tokenized by itself with special tokens spelled out as data, or one special token by its id.
Boundaries between what the model reads and what it learns are therefore exact by construction, and the prefix
that generation gives (`answer_prefix`) is piece for piece the one that training saw.

user_assistant is the format of the work that hpcsft reproduces, after Firefly's multi-turn training:

    <bos>User: question<eos>\\nAssistant: answer<eos>\\nUser: question<eos>\\nAssistant: answer<eos>
                                          ^^^^^^^^^^^ loss                           ^^^^^^^^^^^ loss
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from hpcsft.data.formats import Conversation, Turn
from hpcsft.errors import StageError


class Piece(NamedTuple):
    """Text, or the id of one special token."""

    content: str | int
    supervised: bool = False


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens that templates use; None where the tokenizer has none."""

    bos: int | None
    eos: int | None
    im_start: int | None = None
    im_end: int | None = None

    @classmethod
    def of(cls, tokenizer: Any) -> SpecialTokens:
        """Those of a Hugging Face tokenizer."""
        added = tokenizer.get_added_vocab()
        return cls(
            bos=tokenizer.bos_token_id,
            eos=tokenizer.eos_token_id,
            im_start=added.get("<|im_start|>"),
            im_end=added.get("<|im_end|>"),
        )


@dataclass(frozen=True)
class Template:
    """A chat template as pieces."""

    name: str
    turn: Callable[[Turn, bool], list[Piece]]
    """(turn, is it the first of the row) -> its pieces."""
    answer_header: list[Piece]
    """What stands before every answer."""
    end: int
    """The token that ends an answer; it is supervised, and generation stops at it."""

    def conversation(self, turns: Conversation) -> Iterator[list[Piece]]:
        """The pieces of each turn."""
        for position, turn in enumerate(turns):
            yield self.turn(turn, position == 0)

    def answer_prefix(self, turns: Conversation) -> list[Piece]:
        """All that precedes the next answer."""
        return [piece for pieces in self.conversation(turns) for piece in pieces] + self.answer_header


def make_template(name: str, tokens: SpecialTokens) -> Template:
    """The template called `name`; StageError if the tokenizer lacks a special token that it needs."""
    return {"user_assistant": _user_assistant, "chatml": _chatml}[name](tokens)


def _user_assistant(tokens: SpecialTokens) -> Template:
    if tokens.eos is None:
        raise StageError("data.template: the tokenizer has no end-of-sequence token, which every turn ends with")
    eos = tokens.eos
    start = [Piece(tokens.bos)] if tokens.bos is not None else []
    header = [Piece("\nAssistant: ")]

    def turn(turn: Turn, first: bool) -> list[Piece]:
        if turn.role == "assistant":
            return [*header, Piece(turn.text, True), Piece(eos, True)]
        newline = "" if first else "\n"
        return [
            *(start if first else []),
            Piece(f"{newline}{turn.role.capitalize()}: {turn.text}"),
            Piece(eos),
        ]

    return Template("user_assistant", turn, header, eos)


def _chatml(tokens: SpecialTokens) -> Template:
    if tokens.im_start is None or tokens.im_end is None:
        hint = "use the template user_assistant, which needs only an end-of-sequence token"
        raise StageError("data.template: chatml needs the tokens <|im_start|> and <|im_end|>, the model has none", hint)
    start, end = Piece(tokens.im_start), tokens.im_end
    header = [start, Piece("assistant\n")]

    def turn(turn: Turn, first: bool) -> list[Piece]:
        if turn.role == "assistant":
            return [*header, Piece(turn.text, True), Piece(end, True), Piece("\n")]
        return [start, Piece(f"{turn.role}\n{turn.text}"), Piece(end), Piece("\n")]

    return Template("chatml", turn, header, end)
