"""Conversations become training rows: ids, labels, and never more than max_length of them.

A row is a list of turns that fits; how a conversation is cut into rows is decided on token counts alone, so the
functions below are pure but for the tokenizer that `TurnEncoder` holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hpcsft.data.formats import Conversation
from hpcsft.data.templates import Piece, Template
from hpcsft.spec.data import DataSpec

IGNORE_INDEX = -100
"""Label of a position that carries no loss (torch's default ignore_index)."""


class EncodedTurn(NamedTuple):
    """One turn as tokens."""

    input_ids: list[int]
    labels: list[int]
    """The id where there is loss, IGNORE_INDEX elsewhere; not shifted."""
    answers: bool
    """Is it an assistant's turn?"""


class Row(NamedTuple):
    """One training row: at most max_length tokens, at least one of them supervised."""

    conversation: int
    input_ids: list[int]
    labels: list[int]

    @property
    def num_supervised(self) -> int:
        """Positions with loss. The first position predicts nothing's next token, so it never counts."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])


class TurnEncoder:
    """Tokenizes the pieces of a template, many at once."""

    def __init__(self, tokenizer: Any, template: Template):
        self.tokenizer = tokenizer
        self.template = template

    def conversations(self, conversations: Sequence[Conversation]) -> list[list[EncodedTurn]]:
        """The turns of each conversation, encoded in one batch."""
        pieces = [list(self.template.conversation(turns)) for turns in conversations]
        texts = [str(piece.content) for turns in pieces for turn in turns for piece in turn if _is_text(piece)]
        ids = iter(self.texts(texts))
        return [
            [self._join(turn, ids, given.role == "assistant") for turn, given in zip(turns, conversation, strict=True)]
            for turns, conversation in zip(pieces, conversations, strict=True)
        ]

    def prefix(self, turns: Conversation) -> list[int]:
        """Ids of all that precedes the next answer: exactly what a training row holds there."""
        pieces = self.template.answer_prefix(turns)
        ids = iter(self.texts([str(piece.content) for piece in pieces if _is_text(piece)]))
        return self._join(pieces, ids, False).input_ids

    def texts(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text by itself. A special token that a text spells is data, never control."""
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    @staticmethod
    def _join(pieces: Sequence[Piece], ids: Iterator[list[int]], answers: bool) -> EncodedTurn:
        input_ids: list[int] = []
        labels: list[int] = []
        for piece in pieces:
            tokens = next(ids) if _is_text(piece) else [int(piece.content)]
            input_ids += tokens
            labels += tokens if piece.supervised else [IGNORE_INDEX] * len(tokens)
        return EncodedTurn(input_ids, labels, answers)


def _is_text(piece: Piece) -> bool:
    return isinstance(piece.content, str)


@dataclass
class RowMaker:
    """Cuts encoded conversations into rows and counts what is lost on the way."""

    data: DataSpec
    encoder: TurnEncoder
    counts: Counter[str] = field(default_factory=Counter)

    def rows(self, numbers: Sequence[int], conversations: Sequence[Conversation]) -> Iterator[Row]:
        """The rows of `conversations`, whose numbers are given for the record."""
        for number, given, turns in zip(numbers, conversations, self.encoder.conversations(conversations), strict=True):
            made = 0
            for part in self._parts(given, turns):
                for row in self._masked(number, part):
                    made += 1
                    yield row
            self.counts["conversations_kept" if made else "conversations_dropped"] += 1

    def _parts(self, given: Conversation, turns: list[EncodedTurn]) -> Iterator[list[EncodedTurn]]:
        limit = self.data.max_length
        if _length(turns) <= limit:
            yield turns
            return
        self.counts["conversations_overlong"] += 1
        if self.data.overlong == "drop":
            return
        if self.data.overlong == "truncate":
            yield turns
            return
        yield from self._split(given, turns)

    def _split(self, given: Conversation, turns: list[EncodedTurn]) -> Iterator[list[EncodedTurn]]:
        """As many exchanges per part as fit. Each part starts as a conversation does, system turn included."""
        head = 1 if given[0].role == "system" else 0
        starts = range(head, len(turns), 2)
        part: list[EncodedTurn] = []
        for start in starts:
            exchange = turns[start : start + 2]
            if part and _length(part) + _length(exchange) > self.data.max_length:
                yield part
                part = []
            if part:
                part = part + exchange
            elif start == head:
                part = turns[: head + 2]
            else:
                part = self.encoder.conversations([given[:head] + given[start : start + 2]])[0]
        yield part

    def _masked(self, number: int, turns: list[EncodedTurn]) -> Iterator[Row]:
        answers = [position for position, turn in enumerate(turns) if turn.answers]
        if self.data.mask == "per_turn":
            for position in answers:
                yield from self._row(number, turns[: position + 1], {position})
        else:
            yield from self._row(number, turns, set(answers if self.data.mask == "all_turns" else answers[-1:]))

    def _row(self, number: int, turns: list[EncodedTurn], learn: set[int]) -> Iterator[Row]:
        input_ids: list[int] = []
        labels: list[int] = []
        for position, turn in enumerate(turns):
            input_ids += turn.input_ids
            labels += turn.labels if position in learn else [IGNORE_INDEX] * len(turn.labels)
        if len(input_ids) > self.data.max_length:
            self.counts["rows_truncated"] += 1
            self.counts["tokens_truncated"] += len(input_ids) - self.data.max_length
            input_ids, labels = input_ids[: self.data.max_length], labels[: self.data.max_length]
        row = Row(number, input_ids, labels)
        if row.num_supervised:
            yield row
        else:
            self.counts["rows_without_answer"] += 1


def _length(turns: Sequence[EncodedTurn]) -> int:
    return sum(len(turn.input_ids) for turn in turns)
