"""How much there is in data that nobody has preprocessed yet: from its first rows and the sizes of its files."""

from __future__ import annotations

import os
import zlib
from typing import NamedTuple

import numpy as np

from hpcsft.data.files import PARQUET, find_files
from hpcsft.data.making import RowMaker
from hpcsft.data.packing import pack
from hpcsft.data.preview import first_rows
from hpcsft.data.readers import RawRow, index_file
from hpcsft.data.streams import is_compressed
from hpcsft.errors import InputError, StageError
from hpcsft.estimate.work import Amount, Workload, steps_per_epoch
from hpcsft.spec import ExperimentSpec

FIRST_ROWS = 500
"""Rows of each source that are read."""

MOST_PACKED = 100_000
"""Rows that are packed to see how well rows like these fill micro batches."""


class Rows(NamedTuple):
    """The R training rows that were made of the first conversations of a source."""

    lengths: np.ndarray
    """int64 [R]: tokens of each."""
    num_supervised: np.ndarray
    """int64 [R]: supervised tokens of each."""
    read: int
    """Conversations that were read."""
    total: float
    """Conversations that there are, about."""

    def amount(self, share: float) -> Amount:
        """That share of all rows."""
        scale = share * self.total / self.read
        lengths = self.lengths
        sums = (len(lengths), lengths.sum(), self.num_supervised.sum(), (lengths**2).sum())
        return Amount(**dict(zip(Amount.model_fields, (round(scale * int(part)) for part in sums), strict=True)))


def estimate_workload(spec: ExperimentSpec, num_read: int = FIRST_ROWS) -> Workload:
    """What training will go through, from the first `num_read` rows of each source.

    InputError if model or data cannot be used, or if no training row is left.
    """
    try:
        maker = RowMaker.of(spec)
    except StageError as error:
        raise InputError(error.message, error.hint) from None
    train = _look(maker, spec.data.train, "data.train", num_read)
    sample = spec.data.sample
    drawn = 1.0
    if sample is not None:
        drawn = sample if isinstance(sample, float) else min(1.0, sample / train.total)
    held_out_share = 0.0 if isinstance(spec.data.validation, list) else spec.data.validation
    held_out = train.amount(drawn * held_out_share)
    if isinstance(spec.data.validation, list):
        held_out = _look(maker, spec.data.validation, "data.validation", num_read).amount(1.0)
    amount = train.amount(drawn * (1 - held_out_share))
    micro_batches = _micro_batches(train.lengths, amount.rows, spec)
    whole = train.total == train.read
    of = "" if whole else f" of about {round(train.total):,}"
    return Workload(
        basis=f"an estimate from {'all' if whole else 'the first'} {train.read:,}{of} conversations",
        exact=False,
        train=amount,
        validation=held_out,
        micro_batches=micro_batches,
        steps_per_epoch=steps_per_epoch(micro_batches, spec),
    )


def _look(maker: RowMaker, patterns: list[str], where: str, num_read: int) -> Rows:
    files = find_files(patterns, where)
    first = list(first_rows(files, num_read))
    made = list(maker.make(enumerate(first)))
    lengths = np.concatenate([np.empty(0, dtype=np.int64), *(np.diff(part.rows.offsets) for part in made)])
    supervised = np.concatenate([np.empty(0, dtype=np.int64), *(part.rows.num_supervised for part in made)])
    if not len(lengths):
        hint = "`hpcsft preview` shows what becomes of them"
        raise InputError(f"{where}: no training row is left of the first {len(first)} rows", hint)
    return Rows(lengths.astype(np.int64), supervised.astype(np.int64), len(first), _count(files, first, num_read))


def _count(files: list[str], first: list[RawRow], num_read: int) -> float:
    """About how many rows `files` have: exact for tables, and for texts by their size and that of the first rows."""
    if len(first) < num_read:
        return len(first)  # that was all of them
    texts = [row.payload for row in first if isinstance(row.payload, bytes)]
    joined = b"\n".join(texts)
    row_bytes = (len(joined) + 1) / max(1, len(texts))
    packed = len(zlib.compress(joined)) / max(1, len(joined))
    total = 0.0
    for file in files:
        if not os.path.isfile(file) or file.endswith(PARQUET):
            total += index_file(file, 2**62).rows
        else:
            total += os.path.getsize(file) / row_bytes / (packed if is_compressed(file) else 1)
    return max(total, len(first))


def _micro_batches(lengths: np.ndarray, num_rows: int, spec: ExperimentSpec) -> int:
    """Micro batches of `num_rows` rows like those."""
    size = spec.train.micro_batch_size
    if not spec.data.packing:
        return -(-num_rows // size)
    packed = min(num_rows, max(MOST_PACKED, len(lengths)))
    found = pack(np.resize(lengths, packed), size * spec.data.max_length).num_batches
    return round(found * num_rows / packed) if packed else 0
