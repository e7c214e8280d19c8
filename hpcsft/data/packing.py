"""Which rows are computed together, in which order: arithmetic on lengths alone. Pure.

Packing is best-fit decreasing (Johnson 1973): rows from the longest to the shortest, each into the fullest micro
batch that still has room for it. Everything is determined by the lengths and the seed, not by the number of ranks, and
any step of any epoch is found without replaying the ones before it.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence

MicroBatch = list[int]
"""Indexes of the rows that are computed together; empty only to fill up the last step of an epoch."""


def pack(lengths: Sequence[int], capacity: int) -> list[MicroBatch]:
    """Micro batches of at most `capacity` tokens each, all rows placed.

    Raises ValueError if a row is longer than `capacity`.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    batches: list[MicroBatch] = []
    open_by_room: dict[int, list[int]] = {}  # room -> micro batches with exactly that room
    rooms: list[int] = []  # its keys, ascending
    for row in order:
        length = lengths[row]
        if length > capacity:
            raise ValueError(f"row {row} has {length} tokens, more than the {capacity} of a micro batch")
        position = bisect.bisect_left(rooms, length)
        if position == len(rooms):
            room, batch = capacity, len(batches)
            batches.append([])
        else:
            room = rooms[position]
            batch = open_by_room[room].pop()
            if not open_by_room[room]:
                del open_by_room[room], rooms[position]
        batches[batch].append(row)
        left = room - length
        if left not in open_by_room:
            open_by_room[left] = []
            bisect.insort(rooms, left)
        open_by_room[left].append(batch)
    return batches


class TrainingOrder:
    """The micro batches of every optimizer step.

    A step holds `per_step` micro batches, over all ranks and accumulation steps together. The last step of an epoch is
    filled up with empty ones: no row is left out and every rank has the same number of micro batches.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        micro_batch_size: int,
        max_length: int,
        packing: bool,
        per_step: int,
        seed: int,
    ):
        self.per_step = per_step
        self.seed = seed
        self.packing = packing
        self.micro_batch_size = micro_batch_size
        self.num_rows = len(lengths)
        self._packed = pack(lengths, micro_batch_size * max_length) if packing else []
        num_batches = len(self._packed) if packing else -(-len(lengths) // micro_batch_size)
        self.steps_per_epoch = -(-num_batches // per_step)
        self._epoch = -1
        self._batches: list[MicroBatch] = []

    def step(self, step: int) -> list[MicroBatch]:
        """The `per_step` micro batches of optimizer step `step`, counted from 0 over all epochs."""
        epoch, offset = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._shuffled(epoch)
        batches = self._batches[offset * self.per_step : (offset + 1) * self.per_step]
        return batches + [[]] * (self.per_step - len(batches))

    def _shuffled(self, epoch: int) -> list[MicroBatch]:
        generator = random.Random(f"{self.seed}/{epoch}")
        if self.packing:
            batches = list(self._packed)
            generator.shuffle(batches)
            return batches
        rows = list(range(self.num_rows))
        generator.shuffle(rows)
        size = self.micro_batch_size
        return [rows[start : start + size] for start in range(0, len(rows), size)]
