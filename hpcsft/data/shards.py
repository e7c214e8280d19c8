"""Training rows on disk: Arrow stream files, written batch by batch and read through a memory map.

data/SOURCE-00003.arrow       rows as in SCHEMA; SOURCE is train (files of data.train) or validation (files of its own)
data/SOURCE-00003.bad.jsonl   what is no conversation, if there is any
data/SOURCE-00003.json        what the shard holds; written last, so its existence means that the shard is whole
data/manifest.json            all shards; written last of all

Files know nothing of splits; see splits.py.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from hpcsft.data.quarantine import BadRow, write_bad_rows
from hpcsft.errors import StageError
from hpcsft.records import Record, fsync_folder, read_json, write_json

IGNORE_INDEX = -100
"""Label of a position that carries no loss (torch's default ignore_index)."""

SCHEMA = pa.schema(
    [
        ("conversation", pa.int64()),
        ("key", pa.uint64()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("num_supervised", pa.int32()),
    ]
)

SourceName = Literal["train", "validation"]
"""Where rows came from: the files of data.train, or those of data.validation."""


class EncodedRows(NamedTuple):
    """R training rows of T tokens together, those of one conversation in a row."""

    conversation: np.ndarray
    """int64 [R]: number of the conversation in its source."""
    key: np.ndarray
    """uint64 [R]: `hashing.conversation_key` of the conversation."""
    offsets: np.ndarray
    """int64 [R + 1]: row r is input_ids[offsets[r] : offsets[r + 1]]."""
    input_ids: np.ndarray
    """int32 [T]."""
    labels: np.ndarray
    """int32 [T]: the id where there is loss, IGNORE_INDEX elsewhere; not shifted."""
    num_supervised: np.ndarray
    """int32 [R]: positions with loss; the first position of a row, which nothing precedes, never counts."""

    def table(self) -> pa.RecordBatch:
        """The rows in the columns of SCHEMA, without copying a token."""
        first, last = self.offsets[[0, -1]]  # buffers end with the rows: Arrow writes what follows them as padding
        offsets = pa.array(self.offsets - first, pa.int32())
        columns = [
            pa.array(self.conversation),
            pa.array(self.key),
            pa.ListArray.from_arrays(offsets, pa.array(self.input_ids[first:last])),
            pa.ListArray.from_arrays(offsets, pa.array(self.labels[first:last])),
            pa.array(self.num_supervised),
        ]
        return pa.record_batch(columns, schema=SCHEMA)


class Totals(Record):
    """How much there is of a split."""

    conversations: int = 0
    """Those with at least one row."""
    rows: int = 0
    tokens: int = 0
    supervised_tokens: int = 0


class Shard(Totals):
    """data/SOURCE-00003.json."""

    source: SourceName
    number: int
    """Place in its source, from 0."""
    fingerprint: str
    """Digest of the data and the rules that it was made of."""
    file: str
    """Name of the Arrow file."""
    size_bytes: int
    counts: dict[str, int]
    """What became of the rows of the files."""
    bad_rows: int
    """Rows that are no conversations."""


class Manifest(Record):
    """data/manifest.json: everything that preprocessing left."""

    fingerprint: str
    """Digest of the state of the data and of all rules that decide the rows."""
    template: str | None
    """The Jinja text that rows were made with; None for a built-in template."""
    validation_below: int
    """Threshold of the hashed keys, 0 to 2**64; see `held_out`."""
    seed: int
    shards: list[Shard]
    splits: dict[str, Totals]
    counts: dict[str, int]

    def total(self, split: str, field: str) -> int:
        """Sum of `field` (conversations, rows, tokens, supervised_tokens) over a split; 0 for a split that is not."""
        return getattr(self.splits.get(split, Totals()), field)


class ShardFiles(NamedTuple):
    """The files of one shard, in the order in which they are written."""

    rows: Path
    quarantine: Path
    record: Path


def shard_files(folder: Path, source: SourceName, number: int) -> ShardFiles:
    """Where a shard is, or would be."""
    return ShardFiles(*(folder / f"{source}-{number:05d}.{ending}" for ending in ("arrow", "bad.jsonl", "json")))


class ShardWriter:
    """Writes one shard, a batch of rows at a time. Leaving the `with` block before `commit` leaves no file behind.

    The bytes depend on the rows and on how they came in batches, and on nothing else. Several may write the same shard.
    """

    def __init__(self, folder: Path, source: SourceName, number: int, fingerprint: str):
        self.source: SourceName = source
        self.number = number
        self.fingerprint = fingerprint
        self.files = shard_files(folder, source, number)
        self._temporary = folder / f".{self.files.rows.name}.{secrets.token_hex(8)}.tmp"
        self._conversations = self._rows = self._tokens = self._supervised = 0
        self._newest: int | None = None

    def __enter__(self) -> ShardWriter:
        self._file = open(self._temporary, "wb")
        self._stream = pa.ipc.new_stream(self._file, SCHEMA)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def add(self, rows: EncodedRows) -> None:
        """Write `rows` as one record batch."""
        if not len(rows.conversation):
            return
        self._stream.write_batch(rows.table())
        first, last = rows.conversation[[0, -1]].tolist()
        self._conversations += int(np.count_nonzero(np.diff(rows.conversation))) + (first != self._newest)
        self._newest = last
        self._rows += len(rows.conversation)
        self._tokens += int(rows.offsets[-1] - rows.offsets[0])
        self._supervised += int(rows.num_supervised.sum(dtype=np.int64))

    def commit(self, counts: Mapping[str, int], bad_rows: Sequence[BadRow] = ()) -> Shard:
        """Give the files their names, durably, and then write the record that says that the shard is whole."""
        self._stream.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        shard = Shard(
            source=self.source,
            number=self.number,
            fingerprint=self.fingerprint,
            file=self.files.rows.name,
            size_bytes=self._file.tell(),
            conversations=self._conversations,
            rows=self._rows,
            tokens=self._tokens,
            supervised_tokens=self._supervised,
            counts=dict(sorted(counts.items())),
            bad_rows=len(bad_rows),
        )
        os.replace(self._temporary, self.files.rows)
        if bad_rows:
            write_bad_rows(self.files.quarantine, bad_rows)
        fsync_folder(self.files.rows.parent)
        write_json(self.files.record, shard)
        return shard


def map_batches(path: Path) -> list[pa.RecordBatch]:
    """The record batches of a shard's Arrow file, memory-mapped: nothing is read before it is looked at."""
    with pa.memory_map(str(path)) as file:  # the batches keep the map itself alive
        return list(pa.ipc.open_stream(file))


def read_manifest(path: Path) -> Manifest:
    """The manifest, after a look that every file it names is there and of its size (StageError otherwise)."""
    manifest = Manifest.model_validate(read_json(path))
    for shard in manifest.shards:
        found = path.parent / shard.file
        if not found.exists() or found.stat().st_size != shard.size_bytes:
            hint = "remove data/manifest.json and run preprocess again"
            raise StageError(f"{found}: missing or not of the size in the manifest", hint)
    return manifest
