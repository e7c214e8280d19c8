"""Training rows -> tensors of one micro batch. No padding, no full logits: everything is flat.

Shapes: S positions of the micro batch (all its rows end to end), N supervised positions.

    input_ids     int64 [1, S]
    position_ids  int64 [1, S]   counts from 0 in each row; that is how attention knows where a row begins
    positions     int64 [N]      positions whose next token is supervised
    targets       int64 [N]      those tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow.compute
import torch

from hpcsft.data.encode import IGNORE_INDEX
from hpcsft.data.shards import Manifest


class Batch(NamedTuple):
    """One micro batch; see the head of the module for shapes."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on `device`."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class RowStore:
    """All rows of a split, memory-mapped."""

    def __init__(self, folder: Path, manifest: Manifest, split: str):
        files = manifest.files(split)
        parts = [datasets.Dataset.from_file(str(folder / file.file)) for file in files if file.rows]
        self.rows = datasets.concatenate_datasets(parts).with_format("numpy") if parts else []
        self.lengths: list[int] = []
        self.num_supervised: list[int] = []
        if parts:
            table = self.rows.data
            self.lengths = pyarrow.compute.list_value_length(table.column("input_ids")).to_pylist()
            self.num_supervised = table.column("num_supervised").to_pylist()

    def __len__(self) -> int:
        return len(self.rows)

    def supervised(self, rows: Sequence[int]) -> int:
        """Supervised tokens of `rows` together."""
        return sum(self.num_supervised[row] for row in rows)

    def tokens(self, rows: Sequence[int]) -> int:
        """Tokens of `rows` together."""
        return sum(self.lengths[row] for row in rows)

    def batch(self, rows: Sequence[int]) -> Batch:
        """The micro batch of `rows`. Without rows a batch of two positions and no loss, to keep ranks in step."""
        if not rows:
            nothing = torch.zeros(0, dtype=torch.int64)
            return Batch(torch.zeros(1, 2, dtype=torch.int64), torch.arange(2)[None], nothing, nothing)
        ids = [self.rows[row]["input_ids"] for row in rows]
        labels = [np.array(self.rows[row]["labels"]) for row in rows]
        for row in labels:
            row[0] = IGNORE_INDEX  # nothing precedes a row's first token that could predict it
        flat_labels = np.concatenate(labels)
        places = np.flatnonzero(flat_labels != IGNORE_INDEX)
        return Batch(
            input_ids=torch.from_numpy(np.concatenate(ids).astype(np.int64))[None],
            position_ids=torch.from_numpy(np.concatenate([np.arange(len(row)) for row in ids]))[None],
            positions=torch.from_numpy(places - 1),
            targets=torch.from_numpy(flat_labels[places].astype(np.int64)),
        )
