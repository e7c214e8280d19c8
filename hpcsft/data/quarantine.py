"""Rows that are no conversations, kept with their place and the reason.

data/SOURCE-00003.bad.jsonl   those of a shard, if there are any
data/quarantine.jsonl         those of all shards, in the order of the files
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from hpcsft.data.readers import RawRow
from hpcsft.records import Record, read_jsonl, write_text

EXCERPT_CHARACTERS = 200


class BadRow(Record):
    """A row that is no conversation."""

    file: str
    row: int
    """Line of a JSONL file, position in others, counted from 1."""
    reason: str
    excerpt: str
    """How the row begins."""


def bad_row(raw: RawRow, reason: str) -> BadRow:
    """The record of `raw`."""
    begin = ""
    if isinstance(raw.payload, bytes):
        begin = raw.payload[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "backslashreplace")
    elif isinstance(raw.payload, dict):
        begin = json.dumps(raw.payload, ensure_ascii=False, default=str)
    begin = begin[:EXCERPT_CHARACTERS].encode("utf-8", "backslashreplace").decode("utf-8")
    return BadRow(file=raw.file, row=raw.number, reason=reason, excerpt=begin)


def write_bad_rows(path: Path, rows: Iterable[BadRow]) -> None:
    """Replace `path` by `rows`, one JSON object per line."""
    write_text(path, "".join(json.dumps(row.model_dump(), ensure_ascii=False) + "\n" for row in rows))


def join_bad_rows(path: Path, files: Iterable[Path]) -> BadRow | None:
    """Replace `path` by the rows of `files`, one after the other, as a stream; returns the first row of all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "wb") as joined:
            for file in files:
                with open(file, "rb") as rows:
                    shutil.copyfileobj(rows, joined)
            joined.flush()
            os.fsync(joined.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    first = next(read_jsonl(path), None)
    return BadRow.model_validate(first) if first else None
