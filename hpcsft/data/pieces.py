"""What templates make of a conversation: pieces, and who makes them. Pure."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from hpcsft.data.formats import Conversation


class Piece(NamedTuple):
    """Text, or the id of one special token."""

    content: str | int
    """Text is tokenized by itself, with special tokens that it spells out as data."""
    answer: int | None = None
    """Number (from 0) of the turn whose answer this is part of, its end token included; None carries no loss."""
    inner: bool = False
    """The text goes on from what precedes it: no prefix space is to be put before it, whatever the tokenizer does to
    a text that stands alone."""


class Template(Protocol):
    """A chat template. For each answer t that has pieces, `pieces(turns)` begins with exactly `prefix(turns[:t])`,
    and the pieces whose `answer` is t follow. The last answer has pieces always; an earlier one has none if what
    stands before it depends on later turns, which `check` finds out at the start."""

    @property
    def name(self) -> str:
        """As `data.template` calls it."""

    @property
    def end(self) -> int:
        """The token that ends an answer; it is supervised, and generation stops at it."""

    @property
    def source(self) -> str | None:
        """The Jinja text, None for built-in templates."""

    def pieces(self, turns: Conversation) -> list[Piece]:
        """A whole conversation; RowError where the template refuses these turns."""

    def prefix(self, turns: Conversation) -> list[Piece]:
        """All that precedes the next answer; `turns` end with a user turn. RowError as above."""

    def check(self, mask: str) -> None:
        """StageError if the template cannot serve `data.mask`."""
