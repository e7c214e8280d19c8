"""Training rows on disk: Arrow stream files, which `datasets.Dataset.from_file` opens without reading them.

data/SOURCE-00003.SPLIT.arrow   conversation int64, input_ids list<int32>, labels list<int32>, num_supervised int32
data/SOURCE-00003.json          what the shard holds; written last, so its existence means that it is whole
data/manifest.json              all shards; written last of all
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from hpcsft.data.encode import Row
from hpcsft.errors import StageError
from hpcsft.records import Record, fsync_folder, read_json

SCHEMA = pa.schema(
    [
        ("conversation", pa.int64()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("num_supervised", pa.int32()),
    ]
)


class ShardFile(Record):
    """One Arrow file."""

    split: str
    file: str
    rows: int
    tokens: int
    supervised_tokens: int
    size_bytes: int


class BadRow(Record):
    """A row that is no conversation."""

    file: str
    row: int
    reason: str


class Shard(Record):
    """data/SOURCE-00003.json."""

    source: str = ""
    """Digest of the state of the files that it was made from."""
    files: list[ShardFile]
    counts: dict[str, int]
    bad_rows: list[BadRow]


class Manifest(Record):
    """data/manifest.json: everything that preprocessing left."""

    fingerprint: str
    """Digest of the parts of the spec that decide the rows."""
    shards: list[Shard]
    counts: dict[str, int]

    def files(self, split: str) -> list[ShardFile]:
        """The files of a split, in order."""
        return [file for shard in self.shards for file in shard.files if file.split == split]

    def total(self, split: str, field: str) -> int:
        """Sum of `field` (rows, tokens, supervised_tokens) over a split."""
        return sum(getattr(file, field) for file in self.files(split))


def write_rows(path: Path, split: str, rows: Sequence[Row]) -> ShardFile:
    """Write `rows` to `path` in one step."""
    table = pa.table(
        {
            "conversation": [row.conversation for row in rows],
            "input_ids": [row.input_ids for row in rows],
            "labels": [row.labels for row in rows],
            "num_supervised": [row.num_supervised for row in rows],
        },
        schema=SCHEMA,
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        with pa.ipc.new_stream(file, SCHEMA) as writer:
            writer.write_table(table)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    fsync_folder(path.parent)
    return ShardFile(
        split=split,
        file=path.name,
        rows=len(rows),
        tokens=sum(len(row.input_ids) for row in rows),
        supervised_tokens=sum(row.num_supervised for row in rows),
        size_bytes=path.stat().st_size,
    )


def read_manifest(path: Path) -> Manifest:
    """The manifest, after a look that every file it names is there and of its size (StageError otherwise)."""
    manifest = Manifest.model_validate(read_json(path))
    for shard in manifest.shards:
        for file in shard.files:
            found = path.parent / file.file
            if not found.exists() or found.stat().st_size != file.size_bytes:
                hint = "remove data/manifest.json and run preprocess again"
                raise StageError(f"{found}: missing or not of the size in the manifest", hint)
    return manifest
