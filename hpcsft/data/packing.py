"""Which rows are computed together: arithmetic on lengths alone. Pure.

Best-fit decreasing (Johnson 1973): rows from the longest to the shortest, each into the fullest micro batch that still
has room for it. Rows of one length and micro batches with the same room cannot be told apart, so they are moved
together: the work grows with the number of different lengths and rooms, hardly with the number of rows.

R rows, M micro batches. The result depends on the lengths and their order only.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Packed(NamedTuple):
    """Rows grouped by micro batch, in each of them from the longest to the shortest."""

    rows: np.ndarray
    """int64 [R]: every row once."""
    offsets: np.ndarray
    """int64 [M + 1]: micro batch m is rows[offsets[m] : offsets[m + 1]]."""

    @property
    def num_batches(self) -> int:
        """M."""
        return len(self.offsets) - 1

    def batch(self, number: int) -> np.ndarray:
        """The rows of micro batch `number`, int64."""
        return self.rows[self.offsets[number] : self.offsets[number + 1]]


def pack(lengths: Sequence[int] | np.ndarray, capacity: int) -> Packed:
    """Micro batches of at most `capacity` tokens each, all rows of `lengths` [R] placed.

    Raises ValueError if a row is longer than `capacity` or has no token.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    for row in np.flatnonzero((lengths < 1) | (lengths > capacity))[:1]:
        raise ValueError(f"row {row} has {lengths[row]} tokens, a micro batch takes 1 to {capacity}")
    descending = np.argsort((capacity - lengths).astype(np.min_scalar_type(capacity)), kind="stable")
    per_length = np.bincount(lengths)
    batch_of = np.empty(len(lengths), dtype=np.int32)
    batches = _OpenBatches(capacity)
    placed = 0
    for length in np.flatnonzero(per_length)[::-1].tolist():
        end = placed + int(per_length[length])
        while placed < end:
            # One by one, the next row of this length would go where the last one went: that is now the fullest.
            room = batches.best_room(length)
            each = room // length
            taken = batches.take(room, -(-(end - placed) // each))
            count = min(end - placed, each * len(taken))
            batch_of[placed : placed + count] = np.repeat(taken, each)[:count]
            whole, rest = divmod(count, each)
            batches.put(room - each * length, taken[:whole])
            batches.put(room - rest * length, taken[whole:])
            placed += count
    by_batch = np.argsort(batch_of, kind="stable")
    offsets = np.zeros(batches.num_batches + 1, dtype=np.int64)
    np.cumsum(np.bincount(batch_of, minlength=batches.num_batches), out=offsets[1:])
    return Packed(descending[by_batch], offsets)


class _OpenBatches:
    """Micro batches by the room that they have left; new ones as they are asked for."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.num_batches = 0
        self._by_room: dict[int, list[np.ndarray]] = {}
        self._rooms: list[int] = []  # its keys, ascending

    def best_room(self, length: int) -> int:
        """The smallest room that `length` fits into."""
        position = bisect.bisect_left(self._rooms, length)
        return self._rooms[position] if position < len(self._rooms) else self.capacity

    def take(self, room: int, count: int) -> np.ndarray:
        """At most `count` micro batches with exactly this room."""
        if room == self.capacity:
            first, self.num_batches = self.num_batches, self.num_batches + count
            return np.arange(first, self.num_batches, dtype=np.int32)
        parts, chunks = [], self._by_room[room]
        while count and chunks:
            chunk = chunks.pop()
            if len(chunk) > count:
                chunks.append(chunk[count:])
            parts.append(chunk[:count])
            count -= len(parts[-1])
        if not chunks:
            del self._by_room[room]
            self._rooms.remove(room)
        return np.concatenate(parts)

    def put(self, room: int, batches: np.ndarray) -> None:
        """Remember that `batches` have this room."""
        if room and len(batches):
            if room not in self._by_room:
                self._by_room[room] = []
                bisect.insort(self._rooms, room)
            self._by_room[room].append(batches)
