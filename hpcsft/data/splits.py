"""Which conversations are held out: those whose hashed key falls below a threshold.

Equal conversations have equal keys, so that none is ever in both splits, and the files need not know the share. Rows of
the source validation, which has files of its own, are all held out, and training does without conversations that stand
there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute

from hpcsft.data.hashing import mix
from hpcsft.data.shards import SCHEMA, Shard, SourceName, Totals, map_batches


def held_out(source: SourceName, keys: np.ndarray, seed: int, validation_below: int) -> np.ndarray:
    """Which rows of a source belong to the split validation, by their keys: uint64 [R] -> bool [R]."""
    if source == "validation" or not validation_below:
        return np.full(len(keys), source == "validation")
    return mix(keys, seed) <= np.uint64(validation_below - 1)  # 2**64 itself is no uint64


def in_split(
    split: SourceName, source: SourceName, keys: np.ndarray, seed: int, validation_below: int, kept_out: np.ndarray
) -> np.ndarray:
    """Which rows of a source belong to `split`, by their keys: uint64 [R] -> bool [R].

    `kept_out` are the `validation_keys`.
    """
    below = held_out(source, keys, seed, validation_below)
    return below if split == "validation" else ~(below | np.isin(keys, kept_out))


def validation_keys(folder: Path, shards: Sequence[Shard]) -> np.ndarray:
    """The keys of the conversations in the validation files: uint64 [K]."""
    keys = [_read(folder, shard)["key"].to_numpy() for shard in shards if shard.source == "validation"]
    return np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *keys]))


def split_threshold(keys: np.ndarray, seed: int, share: float) -> int:
    """The `validation_below` that holds out `share` of C conversations: keys uint64 [C], one for each.

    A share above zero holds out at least one, and training always keeps at least one. Equal conversations stay
    together, so that among many equal ones the number held out is the nearest possible.
    """
    hashes = np.sort(mix(keys, seed))
    cuts = np.flatnonzero(hashes[1:] != hashes[:-1]) + 1  # as many can be held out: not none, not all
    if not share or not len(cuts):
        return 0
    return int(hashes[cuts[np.argmin(np.abs(cuts - round(share * len(keys))))]])


def conversation_keys(folder: Path, shards: Sequence[Shard]) -> np.ndarray:
    """The key of each conversation that has a row, once for each: uint64 [C]."""
    keys = [np.empty(0, dtype=np.uint64)]
    for shard in shards:
        rows = _read(folder, shard)
        keys.append(rows["key"].to_numpy()[_begins(rows["conversation"].to_numpy())])
    return np.concatenate(keys)


def count_splits(folder: Path, shards: Sequence[Shard], seed: int, validation_below: int) -> dict[str, Totals]:
    """What the splits hold, from the keys in the files. A split without rows is there as well, with zeros."""
    sums = {split: np.zeros(4, dtype=np.int64) for split in get_args(SourceName)}
    kept_out = validation_keys(folder, shards)
    for shard in shards:
        rows = _read(folder, shard)
        conversations, supervised = rows["conversation"].to_numpy(), rows["num_supervised"].to_numpy()
        lengths = pa.compute.list_value_length(rows["input_ids"]).to_numpy()
        keys = rows["key"].to_numpy()
        for split in sums:
            chosen = in_split(split, shard.source, keys, seed, validation_below, kept_out)
            num_conversations = np.count_nonzero(_begins(conversations[chosen]))
            sums[split] += [num_conversations, chosen.sum(), lengths[chosen].sum(), supervised[chosen].sum()]
    return {split: Totals(**dict(zip(Totals.model_fields, map(int, sums[split]), strict=True))) for split in sums}


def _read(folder: Path, shard: Shard) -> pa.Table:
    return pa.Table.from_batches(map_batches(folder / shard.file), SCHEMA)


def _begins(conversations: np.ndarray) -> np.ndarray:
    """Where in a shard a conversation begins, whose rows follow each other: int64 [R] -> bool [R]."""
    return np.diff(conversations, prepend=-1) != 0
