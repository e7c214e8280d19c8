"""One conversation becomes training rows: where it is cut, and which answers carry loss. Pure.

What a part of a conversation costs in tokens is known only once its pieces are tokenized, and tokenizing pays in large
batches. `RowCutter.rows` is therefore a generator: it yields pieces whose tokens it has to know, and goes on when they
are known. `encode.py` runs many of them in step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from hpcsft.data.formats import Conversation, RowError
from hpcsft.data.pieces import Piece, Template
from hpcsft.spec.data import DataSpec

TURN_MARGIN = 6
"""Tokens that the reference project's splitter adds to the length of each turn."""

Pieces = list[Piece]
Part = tuple[Conversation, Pieces]
"""Turns that fit into one row, and their pieces."""


class RowPlan(NamedTuple):
    """One training row: its pieces, how many tokens are taken of each, and which of them carry loss."""

    pieces: Pieces
    lengths: list[int]
    learnt: list[bool]


class Dropped(Exception):
    """The conversation gives no row; the text is the reason's name in the counts."""


class RowCutter:
    """The rules of `data` for one template.

    `measure` tells the number of tokens of each of some pieces; it is only asked for pieces that were yielded before.
    `num_added` is the number of special tokens that the tokenizer adds to a text by itself.
    """

    def __init__(
        self, data: DataSpec, template: Template, measure: Callable[[Sequence[Piece]], list[int]], num_added: int
    ):
        self.data = data
        self.template = template
        self.measure = measure
        self.num_added = num_added
        self.counts: Counter[str] = Counter()
        """Tokens read, conversations over max_length, and what was cut off."""

    def rows(self, turns: Conversation) -> Generator[Pieces, None, list[RowPlan]]:
        """The rows of a conversation. Raises Dropped if there are none, RowError if the template refuses it."""
        limits = self.data.filter
        num_turns = sum(turn.role != "system" for turn in turns)
        if not (limits.min_turns or 0) <= num_turns <= (limits.max_turns or num_turns):
            raise Dropped("filter_turns")
        whole = self.template.pieces(turns)
        yield whole
        length = sum(self.measure(whole))
        if not (limits.min_tokens or 0) <= length <= (limits.max_tokens or length):
            raise Dropped("filter_tokens")
        self.counts["tokens_read"] += length
        self.counts["conversations_overlong"] += length > self.data.max_length
        parts = yield from self._parts(turns, whole, length)
        rows = []
        for part in parts:
            rows += yield from self._masked(*part)
        if not rows:
            raise Dropped("without_loss")
        return rows

    def _parts(self, turns: Conversation, whole: Pieces, length: int) -> Generator[Pieces, None, list[Part]]:
        if self.data.overlong == "split_reference":
            return (yield from self._split_reference(turns))
        if length <= self.data.max_length or self.data.overlong == "truncate":
            return [(turns, whole)]
        if self.data.overlong == "drop":
            raise Dropped("overlong")
        return (yield from self._split(turns))

    def _split(self, turns: Conversation) -> Generator[Pieces, None, list[Part]]:
        """As many exchanges per part as fit. Each part is a conversation of its own, system turn included."""
        head, exchanges = _exchanges(turns)
        parts: list[Part] = []
        taken: Conversation = []
        for exchange in exchanges:
            longer = taken + exchange if taken else head + exchange
            pieces = self.template.pieces(longer)
            yield pieces
            if taken and sum(self.measure(pieces)) > self.data.max_length:
                longer = head + exchange
                pieces = self.template.pieces(longer)
                yield pieces
                taken = []
            if taken:
                parts.pop()
            parts.append((longer, pieces))
            taken = longer
        return parts

    def _split_reference(self, turns: Conversation) -> Generator[Pieces, None, list[Part]]:
        """The parts of the reference project: an exchange that makes the cut and is the last one is lost."""
        head, exchanges = _exchanges(turns)
        texts = [Piece(turn.text) for exchange in exchanges for turn in exchange]
        yield texts
        lengths = [length + self.num_added + TURN_MARGIN for length in self.measure(texts)]
        start = filled = 0
        spans = []
        for number in range(len(exchanges)):
            cost = lengths[2 * number] + lengths[2 * number + 1]
            if filled + cost > self.data.max_length:
                spans.append((start, number))
                start, filled = number, 0
            elif number == len(exchanges) - 1:
                spans.append((start, number + 1))
            filled += cost
        parts = []
        for start, end in spans:
            self.counts["exchanges_lost"] -= end - start
            if end > start:
                part = head + [turn for exchange in exchanges[start:end] for turn in exchange]
                parts.append((part, self.template.pieces(part)))
        self.counts["exchanges_lost"] += len(exchanges)
        yield [piece for _, pieces in parts for piece in pieces]
        return parts

    def _masked(self, turns: Conversation, pieces: Pieces) -> Generator[Pieces, None, list[RowPlan]]:
        if self.data.mask == "all_turns":
            answers = {piece.answer for piece in pieces} - {None}
            if len(answers) < sum(turn.role == "assistant" for turn in turns):
                why = "the chat template writes earlier turns anew as the conversation goes on"
                raise RowError(f"{why}; data.mask per_turn or last_turn can learn from it")
            return self._row(pieces, answers)
        if self.data.mask == "last_turn":
            begun = {piece.answer for piece in self._within(pieces)} - {None}
            return self._row(pieces, {max(begun, default=None)})
        rows = []
        for answer in (number for number, turn in enumerate(turns) if turn.role == "assistant"):
            pieces = self.template.pieces(turns[: answer + 1])
            yield pieces
            rows += self._row(pieces, {answer})
        return rows

    def _within(self, pieces: Pieces) -> Pieces:
        """The pieces of which at least one token is within max_length."""
        begins, start = [], 0
        for piece, length in zip(pieces, self.measure(pieces), strict=True):
            if length and start < self.data.max_length:
                begins.append(piece)
            start += length
        return begins

    def _row(self, pieces: Pieces, learn: set[int | None]) -> list[RowPlan]:
        """The row of `pieces` with loss on the answers `learn`, cut at max_length; none if no loss is left."""
        lengths = self.measure(pieces)
        over = sum(lengths) - self.data.max_length
        if over > 0:
            self.counts["rows_truncated"] += 1
            self.counts["tokens_truncated"] += over
            room = self.data.max_length
            for place, length in enumerate(lengths):
                lengths[place] = min(length, room)
                room -= lengths[place]
        learnt = [piece.answer is not None and piece.answer in learn for piece in pieces]
        if not any(length for length, carries in zip(lengths, learnt, strict=True) if carries):
            self.counts["rows_without_loss"] += 1
            return []
        return [RowPlan(pieces, lengths, learnt)]


def _exchanges(turns: Conversation) -> tuple[Conversation, list[Conversation]]:
    """The system turn, if there is one, and the pairs of question and answer."""
    head = 1 if turns[0].role == "system" else 0
    return turns[:head], [turns[start : start + 2] for start in range(head, len(turns), 2)]
