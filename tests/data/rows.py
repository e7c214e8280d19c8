"""Training rows in plain lists, written to shards and opened as training opens them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcsft.data.batches import RowStore
from hpcsft.data.shards import IGNORE_INDEX, EncodedRows, Manifest, Shard, ShardWriter, SourceName
from hpcsft.data.splits import count_splits

PER_BATCH = 3
"""Rows of a record batch in the shards of tests: several per file."""


class Row(NamedTuple):
    """One training row, in plain lists."""

    conversation: int
    input_ids: list[int]
    labels: list[int]

    @property
    def num_supervised(self) -> int:
        """Positions with loss, but for the first."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])


def encoded(rows: Sequence[Row], keys: dict[int, int] | None = None) -> EncodedRows:
    """`rows` as arrays. The key of a conversation is its number, if `keys` says nothing else."""
    keys = keys or {}
    offsets = np.cumsum([0, *(len(row.input_ids) for row in rows)])
    return EncodedRows(
        np.array([row.conversation for row in rows], dtype=np.int64),
        np.array([keys.get(row.conversation, row.conversation) for row in rows], dtype=np.uint64),
        offsets.astype(np.int64),
        np.array([token for row in rows for token in row.input_ids], dtype=np.int32),
        np.array([label for row in rows for label in row.labels], dtype=np.int32),
        np.array([row.num_supervised for row in rows], dtype=np.int32),
    )


def manifest_of(folder: Path, shards: Sequence[Shard], validation_below: int = 0, seed: int = 0) -> Manifest:
    """The manifest of `shards` with what the splits hold, nothing held out unless told so."""
    return Manifest(
        fingerprint="",
        template=None,
        validation_below=validation_below,
        seed=seed,
        shards=list(shards),
        splits=count_splits(folder, shards, seed, validation_below),
        counts={},
    )


def write_shards(
    folder: Path, rows: Sequence[Row], per_shard: int, source: SourceName = "train", below: int = 0
) -> Manifest:
    """`rows` in several Arrow files, and their manifest."""
    shards = []
    for start in range(0, len(rows), per_shard):
        with ShardWriter(folder, source, start // per_shard, "") as writer:
            of_shard = rows[start : start + per_shard]
            for first in range(0, len(of_shard), PER_BATCH):
                writer.add(encoded(of_shard[first : first + PER_BATCH]))
            shards.append(writer.commit({}))
    return manifest_of(folder, shards, below)


def open_rows(folder: Path, rows: Sequence[Row], per_shard: int = 7) -> RowStore:
    """`rows` written to `folder` and opened again."""
    return RowStore(folder, write_shards(folder, rows, per_shard), "train")


def made_rows(count: int, seed: int = 0, longest: int = 40) -> list[Row]:
    """Rows as no tokenizer makes them, each a conversation of its own: any ids, loss anywhere but never nowhere."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        ids = [generator.randrange(1000) for _ in range(generator.randint(2, longest))]
        labels = [token if generator.random() < 0.5 else IGNORE_INDEX for token in ids[:-1]] + ids[-1:]
        rows.append(Row(number, ids, labels))
    return rows
