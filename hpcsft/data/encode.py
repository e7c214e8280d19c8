"""Conversations -> rows of ids and labels, as arrays: the tokenizer does the work, the rest is vectorised.

Shapes: R rows, P pieces of all rows together, T tokens of all rows together.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hpcsft.data.formats import Conversation, RowError
from hpcsft.data.hashing import conversation_key
from hpcsft.data.pieces import Template
from hpcsft.data.rows import Dropped, RowCutter, RowPlan
from hpcsft.data.shards import IGNORE_INDEX, EncodedRows
from hpcsft.data.tokens import TextEncoder, TokenTable
from hpcsft.spec.data import DataSpec


class Encoded(NamedTuple):
    """What became of some conversations."""

    rows: EncodedRows
    refused: dict[int, str]
    """Number of a conversation that the template cannot express -> why."""
    counts: Counter[str]


class ConversationEncoder:
    """Makes training rows by the rules of `data`."""

    def __init__(self, data: DataSpec, template: Template, tokenizer: Any):
        self.data = data
        self.template = template
        self.texts = TextEncoder(tokenizer)

    def encode(self, conversations: Sequence[tuple[int, Conversation]]) -> Encoded:
        """The rows of `conversations`, given with the numbers that stand for them."""
        table = TokenTable(self.texts)
        cutter = RowCutter(self.data, self.template, table.measure, self.texts.num_added)
        running = [(number, turns, cutter.rows(turns)) for number, turns in conversations]
        done: dict[int, tuple[int, list[RowPlan]]] = {}
        refused: dict[int, str] = {}
        while running:
            asked, waiting = [], []
            for number, turns, rows in running:
                try:
                    asked += next(rows)
                    waiting.append((number, turns, rows))
                except StopIteration as end:
                    done[number] = conversation_key(turns), end.value
                except Dropped as reason:
                    cutter.counts[f"dropped_{reason}"] += 1
                    cutter.counts["conversations_dropped"] += 1
                except RowError as error:
                    refused[number] = str(error)
            table.add(asked)
            running = waiting
        cutter.counts["conversations_kept"] += len(done)
        return Encoded(_assemble(table, dict(sorted(done.items()))), refused, +cutter.counts)


def encode_prefix(template: Template, texts: TextEncoder, turns: Conversation) -> list[int]:
    """Ids of all that precedes the next answer: exactly what a training row holds there.

    Raises RowError if the template refuses `turns`.
    """
    pieces = template.prefix(turns)
    table = TokenTable(texts)
    table.add(pieces)
    return _gather(table, table.entries(pieces), table.measure(pieces)).tolist()


def _assemble(table: TokenTable, done: dict[int, tuple[int, list[RowPlan]]]) -> EncodedRows:
    plans = [(number, key, plan) for number, (key, made) in done.items() for plan in made]
    entries = [table.entries(plan.pieces) for _, _, plan in plans]
    num_pieces = np.fromiter(map(len, entries), np.int64, len(plans))
    lengths = [length for _, _, plan in plans for length in plan.lengths]
    learnt = np.fromiter(itertools.chain.from_iterable(plan.learnt for _, _, plan in plans), bool, len(lengths))
    ids = _gather(table, list(itertools.chain.from_iterable(entries)), lengths)
    labels = np.where(np.repeat(learnt, lengths), ids, np.int32(IGNORE_INDEX))
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    offsets = ends[np.concatenate([[0], np.cumsum(num_pieces)])]
    labels[offsets[:-1]] = IGNORE_INDEX  # nothing precedes a row's first token that could predict it
    carries = np.concatenate([[0], np.cumsum(labels != IGNORE_INDEX)])
    return EncodedRows(
        conversation=np.array([number for number, _, _ in plans], dtype=np.int64),
        key=np.array([key for _, key, _ in plans], dtype=np.uint64),
        offsets=offsets,
        input_ids=ids,
        labels=labels,
        num_supervised=np.diff(carries[offsets]).astype(np.int32),
    )


def _gather(table: TokenTable, entries: Sequence[int], lengths: Sequence[int]) -> np.ndarray:
    """The first `lengths[p]` tokens of each entry p, end to end: int32 [T]."""
    flat, starts = table.flat()
    taken = np.asarray(lengths, dtype=np.int64)
    before = np.cumsum(taken) - taken
    places = np.repeat(starts[np.asarray(entries, dtype=np.int64)] - before, taken)
    return flat[places + np.arange(len(places))]
