"""Conversations to rows in plain lists, by the real encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpcsft.data.encode import ConversationEncoder, Encoded
from hpcsft.data.formats import Conversation
from hpcsft.data.shards import EncodedRows
from hpcsft.data.templates import make_template
from hpcsft.spec.data import DataSpec
from tests.data.reference import turns_of
from tests.data.rows import Row

WHOLE = 100_000
"""Longer than any conversation."""


def encoder_of(tokenizer: Any, template: str = "user_assistant", source: str | None = None, **data: Any):
    """An encoder with the rules `data`; nothing is cut unless they say so."""
    spec = DataSpec(train=["x"], template=template, **{"max_length": WHOLE, **data})
    return ConversationEncoder(spec, make_template(template, tokenizer, source), tokenizer)


def plain(rows: EncodedRows) -> list[Row]:
    """Arrays as lists."""
    spans = list(zip(rows.offsets[:-1].tolist(), rows.offsets[1:].tolist(), strict=True))
    made = [
        Row(number, rows.input_ids[start:end].tolist(), rows.labels[start:end].tolist())
        for number, (start, end) in zip(rows.conversation.tolist(), spans, strict=True)
    ]
    assert [row.num_supervised for row in made] == rows.num_supervised.tolist()
    return made


def encode(encoder: ConversationEncoder, conversations: Sequence[Conversation]) -> tuple[list[Row], Encoded]:
    """The rows of `conversations`, and all that the encoder says about them."""
    encoded = encoder.encode(list(enumerate(conversations)))
    return plain(encoded.rows), encoded


def rows_of(encoder: ConversationEncoder, dialogs: Sequence[list[str]]) -> list[Row]:
    """The rows of dialogs that are given as texts by turns."""
    return encode(encoder, [turns_of(texts) for texts in dialogs])[0]
