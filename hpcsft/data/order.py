"""In which order rows are learnt: fixed by the lengths and the seed, and not by the number of ranks. Pure.

Any step of any epoch is found without replaying the ones before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcsft.data.hashing import mix
from hpcsft.data.packing import pack

MicroBatch = np.ndarray
"""int64: the rows that are computed together; empty only to fill up the last step of an epoch."""


def divide(rows: MicroBatch, lengths: np.ndarray, parts: int) -> list[MicroBatch]:
    """A micro batch as `parts` smaller ones of about as many tokens each; some are empty if there are too few rows."""
    divided: list[list[int]] = [[] for _ in range(parts)]
    tokens = [0] * parts
    for row in sorted(rows.tolist(), key=lambda row: -lengths[row]):
        least = tokens.index(min(tokens))
        divided[least].append(row)
        tokens[least] += lengths[row]
    return [np.array(part, dtype=np.int64) for part in divided]


class TrainingOrder:
    """The micro batches of every optimizer step.

    A step holds `per_step` micro batches, over all ranks and accumulation steps together. The last step of an epoch is
    filled up with empty ones: no row is left out and every rank has the same number of micro batches. With packing the
    micro batches are the same in every epoch and come in another order; without, any rows meet.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        micro_batch_size: int,
        max_length: int,
        packing: bool,
        per_step: int,
        seed: int,
    ):
        self.per_step = per_step
        self.seed = seed
        self.micro_batch_size = micro_batch_size
        self._packed = pack(lengths, micro_batch_size * max_length) if packing else None
        self._num_shuffled = self._packed.num_batches if self._packed else len(lengths)
        self._num_batches = self._num_shuffled if self._packed else -(-len(lengths) // micro_batch_size)
        self.steps_per_epoch = -(-self._num_batches // per_step)
        self._epoch = -1
        self._shuffled = np.empty(0, dtype=np.int64)

    def step(self, step: int) -> list[MicroBatch]:
        """The `per_step` micro batches of optimizer step `step`, counted from 0 over all epochs."""
        epoch, offset = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            hashes = mix(np.arange(self._num_shuffled), self.seed, epoch)  # all different: one way to sort them
            self._epoch, self._shuffled = epoch, np.argsort(hashes)
        first = offset * self.per_step
        return [self._batch(place) for place in range(first, first + self.per_step)]

    def _batch(self, place: int) -> MicroBatch:
        if self._packed is None:
            return self._shuffled[place * self.micro_batch_size : (place + 1) * self.micro_batch_size]
        if place >= self._num_batches:
            return self._shuffled[:0]
        return self._packed.batch(self._shuffled[place])
