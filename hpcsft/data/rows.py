"""One conversation becomes training rows: where it is cut, and which answers carry loss. Pure.

What a part of a conversation costs in tokens is known only once its pieces are tokenized, and tokenizing pays in large
batches. `RowCutter.rows` is therefore a generator: it yields pieces that have to be tokenized, and goes on when they
are. `encode.py` runs many of them in step.
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


class Part(NamedTuple):
    """Turns that become one row, or one row for each answer."""

    turns: Conversation
    pieces: Pieces
    lengths: list[int]
    """Tokens of each piece."""


class RowPlan(NamedTuple):
    """One training row: its pieces, how many tokens are taken of each, and which of them carry loss."""

    pieces: Pieces
    lengths: list[int]
    learnt: list[bool]


class Dropped(Exception):
    """The conversation gives no row; the text is the reason's name in the counts."""


class RowCutter:
    """The rules of `data` for one template.

    `measure` tells the number of tokens of each of some pieces, or None if one of them was never yielded.
    `num_added` is the number of special tokens that the tokenizer adds to a text by itself.
    """

    def __init__(
        self, data: DataSpec, template: Template, measure: Callable[[Sequence[Piece]], list[int] | None], num_added: int
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
        whole = yield from self._part(turns)
        length = sum(whole.lengths)
        if not (limits.min_tokens or 0) <= length <= (limits.max_tokens or length):
            raise Dropped("filter_tokens")
        self.counts["tokens_read"] += length
        self.counts["conversations_overlong"] += length > self.data.max_length
        parts = yield from self._parts(whole)
        rows = []
        for part in parts:
            rows += yield from self._masked(part)
        if not rows:
            raise Dropped("without_loss")
        return rows

    def _part(self, turns: Conversation) -> Generator[Pieces, None, Part]:
        pieces = self.template.pieces(turns)
        return Part(turns, pieces, (yield from self._measured(pieces)))

    def _measured(self, pieces: Pieces) -> Generator[Pieces, None, list[int]]:
        lengths = self.measure(pieces)
        if lengths is None:
            yield pieces
            lengths = self.measure(pieces)
            assert lengths is not None
        return lengths

    def _parts(self, whole: Part) -> Generator[Pieces, None, list[Part]]:
        if self.data.overlong == "split_reference":
            return (yield from self._split_reference(whole.turns))
        if sum(whole.lengths) <= self.data.max_length or self.data.overlong == "truncate":
            return [whole]
        if self.data.overlong == "drop":
            raise Dropped("overlong")
        return (yield from self._split(whole.turns))

    def _split(self, turns: Conversation) -> Generator[Pieces, None, list[Part]]:
        """As many exchanges per part as fit. Each part is a conversation of its own, system turn included."""
        head, exchanges = _exchanges(turns)
        if self.data.mask == "last_turn":
            return [(yield from self._end(head, exchanges))]
        parts: list[Part] = []
        for exchange in exchanges:
            if parts:
                longer = yield from self._part(parts[-1].turns + exchange)
                if sum(longer.lengths) <= self.data.max_length:
                    parts[-1] = longer
                    continue
            parts.append((yield from self._part(head + exchange)))
        return parts

    def _end(self, head: Conversation, exchanges: list[Conversation]) -> Generator[Pieces, None, Part]:
        """The last exchange, which alone carries loss, with as many of those before it as fit."""
        taken = exchanges[-1]
        part = yield from self._part(head + taken)
        for exchange in reversed(exchanges[:-1]):
            taken = exchange + taken
            longer = yield from self._part(head + taken)
            if sum(longer.lengths) > self.data.max_length:
                break
            part = longer
        return part

    def _split_reference(self, turns: Conversation) -> Generator[Pieces, None, list[Part]]:
        """The parts of the reference project: an exchange that makes the cut and is the last one is lost."""
        head, exchanges = _exchanges(turns)
        texts = [Piece(turn.text) for exchange in exchanges for turn in exchange]
        lengths = [length + self.num_added + TURN_MARGIN for length in (yield from self._measured(texts))]
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
        for start, end in (span for span in spans if span[0] < span[1]):
            turns = head + [turn for exchange in exchanges[start:end] for turn in exchange]
            parts.append((yield from self._part(turns)))
        self.counts["exchanges_lost"] += len(exchanges) - sum(end - start for start, end in spans)
        return parts

    def _masked(self, part: Part) -> Generator[Pieces, None, list[RowPlan]]:
        answers = [number for number, turn in enumerate(part.turns) if turn.role == "assistant"]
        if self.data.mask == "all_turns":
            if len({piece.answer for piece in part.pieces} - {None}) < len(answers):
                why = "the chat template writes earlier turns anew as the conversation goes on"
                raise RowError(f"{why}; data.mask per_turn or last_turn can learn from it")
            return self._row(part, set(answers))
        if self.data.mask == "last_turn":
            begun = {piece.answer for piece in self._within(part)} - {None}
            return self._row(part, {max(begun, default=None)})
        rows: list[RowPlan] = []
        for done, answer in enumerate(answers):
            row = self._row((yield from self._part(part.turns[: answer + 1])), {answer})
            rows += row
            if not row:  # what precedes this answer fills the row, and later ones the more
                self.counts["rows_without_loss"] += len(answers) - done - 1
                break
        return rows

    def _within(self, part: Part) -> Pieces:
        """The pieces of which at least one token is within max_length."""
        begins, start = [], 0
        for piece, length in zip(part.pieces, part.lengths, strict=True):
            if length and start < self.data.max_length:
                begins.append(piece)
            start += length
        return begins

    def _row(self, part: Part, learn: set[int | None]) -> list[RowPlan]:
        """The row of `part` with loss on the answers `learn`, cut at max_length; none if no loss is left."""
        pieces, lengths = part.pieces, part.lengths.copy()
        over = sum(lengths) - self.data.max_length
        if over > 0:
            room = self.data.max_length
            for place, length in enumerate(lengths):
                lengths[place] = min(length, room)
                room -= lengths[place]
        learnt = [piece.answer is not None and piece.answer in learn for piece in pieces]
        if not any(length for length, carries in zip(lengths, learnt, strict=True) if carries):
            self.counts["rows_without_loss"] += 1
            return []
        self.counts["rows_truncated"] += over > 0
        self.counts["tokens_truncated"] += max(over, 0)
        return [RowPlan(pieces, lengths, learnt)]


def _exchanges(turns: Conversation) -> tuple[Conversation, list[Conversation]]:
    """The system turn, if there is one, and the pairs of question and answer."""
    head = 1 if turns[0].role == "system" else 0
    return turns[:head], [turns[start : start + 2] for start in range(head, len(turns), 2)]
