"""Training rows -> tensors of one micro batch. No padding, no full logits: everything is flat.

Shapes: S positions of the micro batch (all its rows end to end), N supervised positions.

    input_ids     int64 [1, S]
    position_ids  int64 [1, S]   counts from 0 in each row; that is how attention knows where a row begins
    positions     int64 [N]      positions whose next token is supervised
    targets       int64 [N]      those tokens
    lengths       tuple          positions of each row, S together

R rows of the split. Tokens are sliced straight from the mapped files; only what is known of each row is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from hpcsft.data.shards import IGNORE_INDEX, Manifest, Shard, SourceName, map_batches
from hpcsft.data.splits import in_split, validation_keys


class Batch(NamedTuple):
    """One micro batch; see the head of the module for shapes."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    lengths: tuple[int, ...]

    def to(self, device: torch.device) -> Batch:
        """The same on `device`; the lengths stay numbers of the host, which no kernel has to be waited for."""
        *tensors, lengths = self
        if device.type == "cuda":  # else the copy would wait for the GPU
            tensors = [tensor.pin_memory() for tensor in tensors]
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors), lengths)


class RowStore:
    """All rows of a split in the order of its files, memory-mapped."""

    lengths: np.ndarray
    """int32 [R]: tokens of each row."""
    num_supervised: np.ndarray
    """int32 [R]: supervised tokens of each row."""

    def __init__(self, folder: Path, manifest: Manifest, split: SourceName):
        self._source = folder, manifest, split
        self._tokens: list[tuple[np.ndarray, np.ndarray]] = []  # input_ids and labels of each record batch
        facts = [np.empty((4, 0), dtype=np.int32)]
        for _, batch, mine in _chosen(folder, manifest, split):
            offsets = batch.column("input_ids").offsets.to_numpy()
            supervised = batch.column("num_supervised").to_numpy()
            part = np.full(len(mine), len(self._tokens))
            start, end = offsets[mine] - offsets[0], offsets[mine + 1] - offsets[0]
            facts.append(np.stack([part, start, end - start, supervised[mine]]).astype(np.int32))
            ids, labels = (batch.column(name).flatten().to_numpy() for name in ("input_ids", "labels"))
            self._tokens.append((ids, labels))
        self._part, self._start, self.lengths, self.num_supervised = np.concatenate(facts, axis=1)

    def __len__(self) -> int:
        return len(self.lengths)

    def supervised(self, rows: Sequence[int] | np.ndarray | slice = slice(None)) -> int:
        """Supervised tokens of `rows` together; of all rows if none are named."""
        return int(self.num_supervised[rows].sum(dtype=np.int64))

    def tokens(self, rows: Sequence[int] | np.ndarray | slice = slice(None)) -> int:
        """Tokens of `rows` together; of all rows if none are named."""
        return int(self.lengths[rows].sum(dtype=np.int64))

    def row(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """input_ids and labels of one row as they are in the file: int32, to be read only."""
        ids, labels = self._tokens[self._part[row]]
        start = self._start[row]
        end = start + self.lengths[row]
        return ids[start:end], labels[start:end]

    def names(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Which conversations `rows` are of: "row 17 of data.train", counted from 1. Reads the files again."""
        told = [
            f"row {number + 1} of data.{shard.source}"
            for shard, batch, mine in _chosen(*self._source)
            for number in batch.column("conversation").to_numpy()[mine].tolist()
        ]
        return [told[row] for row in rows]

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """The micro batch of `rows`. Without rows a batch of two positions and no loss, to keep ranks in step."""
        if not len(rows):
            nothing = torch.zeros(0, dtype=torch.int64)
            return Batch(torch.zeros(1, 2, dtype=torch.int64), torch.arange(2)[None], nothing, nothing, (2,))
        ids, labels = zip(*map(self.row, rows), strict=True)
        lengths = self.lengths[rows]
        ends = lengths.cumsum(dtype=np.int64)
        starts = ends - lengths
        flat_labels = np.concatenate(labels, dtype=np.int64)
        flat_labels[starts] = IGNORE_INDEX  # nothing precedes a row's first token that could predict it
        places = np.flatnonzero(flat_labels != IGNORE_INDEX)
        return Batch(
            input_ids=torch.from_numpy(np.concatenate(ids, dtype=np.int64))[None],
            position_ids=torch.from_numpy(np.arange(ends[-1]) - starts.repeat(lengths))[None],
            positions=torch.from_numpy(places - 1),
            targets=torch.from_numpy(flat_labels[places]),
            lengths=tuple(lengths.tolist()),
        )


def _chosen(folder: Path, manifest: Manifest, split: SourceName) -> Iterator[tuple[Shard, pa.RecordBatch, np.ndarray]]:
    """Every record batch that has rows of `split`, and which of its rows they are."""
    rule = manifest.seed, manifest.validation_below, validation_keys(folder, manifest.shards)
    for shard in manifest.shards:
        for batch in map_batches(folder / shard.file):
            mine = np.flatnonzero(in_split(split, shard.source, batch.column("key").to_numpy(), *rule))
            if len(mine):
                yield shard, batch, mine
