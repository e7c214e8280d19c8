"""Rows of files -> training rows: parsed, encoded in chunks, and every row accounted for.

Preprocessing writes to shards what is made here; a preview shows it.
"""

from __future__ import annotations

import contextlib
import gc
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from hpcsft.data.encode import ConversationEncoder, Encoded
from hpcsft.data.formats import Conversation, RowError, conversation_of
from hpcsft.data.pieces import Template
from hpcsft.data.quarantine import BadRow, bad_row
from hpcsft.data.readers import RawRow
from hpcsft.data.shards import EncodedRows
from hpcsft.data.templates import make_template
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.data import DataSpec

CHUNK_CONVERSATIONS = 512
CHUNK_CHARACTERS = 2**21
"""What is tokenized at once: more only costs memory."""
CHUNK_PREFIXES = 2**18
"""Sum of the squared numbers of turns in a chunk: with data.mask per_turn rows grow like that."""

CHUNKS_AT_ONCE = 2
"""While the tokenizer works on one chunk, without Python's lock, another is put together and a third one is read."""


class Chunk:
    """Rows that are encoded together."""

    def __init__(self) -> None:
        self.read: list[int] = []
        """Numbers of all of them."""
        self.conversations: dict[int, tuple[RawRow, Conversation]] = {}
        self.bad_rows: dict[int, BadRow] = {}


class Made(NamedTuple):
    """What became of one chunk of rows."""

    rows: EncodedRows
    bad_rows: list[BadRow]
    """In the order in which they were read."""
    counts: Counter[str]
    """conversations_read, and as `encode` counts."""


class RowMaker(NamedTuple):
    """Makes training rows by the rules of a spec."""

    data: DataSpec
    tokenizer: Any
    template: Template
    encoder: ConversationEncoder

    @classmethod
    def of(cls, spec: ExperimentSpec, source: str | None = None) -> RowMaker:
        """By the rules of `spec`; with `source`, the text of its Jinja template, the file is not looked at.

        InputError or StageError if the tokenizer does not load, or cannot serve the template and the mask.
        """
        tokenizer = load_tokenizer(spec.model.path)
        template = make_template(spec.data.template, tokenizer, source)
        template.check(spec.data.mask)
        return cls(spec.data, tokenizer, template, ConversationEncoder(spec.data, template, tokenizer))

    def make(self, rows: Iterable[tuple[int, RawRow]]) -> Iterator[Made]:
        """The training rows of `rows`, given with their numbers in the source, chunk by chunk and in order."""
        with _few_collections(), ThreadPoolExecutor(CHUNKS_AT_ONCE) as pool:
            waiting: deque[tuple[Chunk, Future[Encoded]]] = deque()
            try:
                for chunk in self._chunks(rows):
                    turns = [(number, turns) for number, (_, turns) in chunk.conversations.items()]
                    waiting.append((chunk, pool.submit(self.encoder.encode, turns)))
                    if len(waiting) > CHUNKS_AT_ONCE:
                        yield _made(*waiting.popleft())
                while waiting:
                    yield _made(*waiting.popleft())
            finally:
                for _, encoding in waiting:
                    encoding.cancel()

    def _chunks(self, rows: Iterable[tuple[int, RawRow]]) -> Iterator[Chunk]:
        chunk, characters, prefixes = Chunk(), 0, 0
        for number, raw in rows:
            chunk.read.append(number)
            try:
                turns = conversation_of(raw.parse(), self.data.format)
            except RowError as error:
                chunk.bad_rows[number] = bad_row(raw, str(error))
                continue
            chunk.conversations[number] = raw, turns
            characters += sum(len(turn.text) for turn in turns)
            prefixes += len(turns) ** 2
            full = len(chunk.read) >= CHUNK_CONVERSATIONS
            if full or characters >= CHUNK_CHARACTERS or prefixes >= CHUNK_PREFIXES:
                yield chunk
                chunk, characters, prefixes = Chunk(), 0, 0
        if chunk.read:
            yield chunk


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Rows are put together from millions of small objects without cycles, which Python would look through for some."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _made(chunk: Chunk, encoding: Future[Encoded]) -> Made:
    encoded = encoding.result()
    refused = {number: bad_row(chunk.conversations[number][0], why) for number, why in encoded.refused.items()}
    bad_rows = chunk.bad_rows | refused
    counts = encoded.counts + Counter(conversations_read=len(chunk.read))
    return Made(encoded.rows, [bad_rows[number] for number in chunk.read if number in bad_rows], counts)
