"""Rows of files -> training rows: parsed, encoded in chunks, and every row accounted for.

Preprocessing writes to shards what is made here; a preview shows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from hpcsft.data.encode import ConversationEncoder
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
    def of(cls, spec: ExperimentSpec) -> RowMaker:
        """InputError or StageError if the tokenizer does not load, or cannot serve the template and the mask."""
        tokenizer = load_tokenizer(spec.model.path)
        template = make_template(spec.data.template, tokenizer)
        template.check(spec.data.mask)
        return cls(spec.data, tokenizer, template, ConversationEncoder(spec.data, template, tokenizer))

    def make(self, rows: Iterable[tuple[int, RawRow]]) -> Iterator[Made]:
        """The training rows of `rows`, given with their numbers in the source, chunk by chunk."""
        chunk: dict[int, tuple[RawRow, Conversation]] = {}
        bad_rows: dict[int, BadRow] = {}
        read = characters = 0
        for number, raw in rows:
            read += 1
            try:
                turns = conversation_of(raw.parse(), self.data.format)
            except RowError as error:
                bad_rows[number] = bad_row(raw, str(error))
                continue
            chunk[number] = raw, turns
            characters += sum(len(turn.text) for turn in turns)
            if len(chunk) >= CHUNK_CONVERSATIONS or characters >= CHUNK_CHARACTERS:
                yield self._encoded(chunk, bad_rows, read)
                chunk, bad_rows, read, characters = {}, {}, 0, 0
        if read:
            yield self._encoded(chunk, bad_rows, read)

    def _encoded(self, chunk: dict[int, tuple[RawRow, Conversation]], bad_rows: dict[int, BadRow], read: int) -> Made:
        encoded = self.encoder.encode([(number, turns) for number, (_, turns) in chunk.items()])
        refused = {number: bad_row(chunk[number][0], why) for number, why in encoded.refused.items()}
        in_order = [bad for _, bad in sorted((bad_rows | refused).items())]
        return Made(encoded.rows, in_order, encoded.counts + Counter(conversations_read=read))
