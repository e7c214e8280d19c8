"""Guards what is computed together: every row once, no micro batch over its size and none emptier than it must be."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from hpcsft.data.packing import Packed, pack

CAPACITY = 512


def lengths_of(seed: int, count: int = 400, capacity: int = CAPACITY) -> list[int]:
    """Lengths as conversations have them: many short, some long, a few that fill a micro batch."""
    generator = random.Random(seed)
    drawn = [min(capacity, 1 + int(generator.lognormvariate(4.2, 1.0))) for _ in range(count)]
    return [*drawn, capacity, 1]


def batches_of(packed: Packed) -> list[list[int]]:
    return [packed.batch(number).tolist() for number in range(packed.num_batches)]


def fills(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[row] for row in batch) for batch in batches]


def first_fit(lengths: Sequence[int], capacity: int) -> list[int]:
    """Fills of the bins when every row goes into the first bin that has room."""
    bins: list[int] = []
    for length in lengths:
        place = next((i for i, fill in enumerate(bins) if fill + length <= capacity), None)
        if place is None:
            bins.append(length)
        else:
            bins[place] += length
    return bins


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Lengths in the bins when every row, the longest first, goes into the fullest bin that has room."""
    bins: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        room = [bin for bin in bins if sum(bin) + length <= capacity]
        if room:
            max(room, key=sum).append(length)
        else:
            bins.append([length])
    return bins


@pytest.mark.parametrize("seed", range(8))
def test_every_row_is_placed_once_and_no_batch_overflows(seed):
    lengths = lengths_of(seed)
    batches = batches_of(pack(lengths, CAPACITY))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(batches) and max(fills(batches, lengths)) <= CAPACITY


@pytest.mark.parametrize("capacity", [CAPACITY, 90_000])
@pytest.mark.parametrize("seed", range(8))
def test_batches_are_as_full_as_best_fit_one_by_one_makes_them(seed, capacity):
    lengths = lengths_of(seed, capacity=min(capacity, 4096)) * (1 if capacity == CAPACITY else 2)
    fill = sorted(fills(batches_of(pack(lengths, capacity)), lengths))
    assert fill == sorted(map(sum, best_fit_decreasing(lengths, capacity)))
    assert len(fill) <= len(first_fit(lengths, capacity))
    assert len(fill) <= math.ceil(sum(lengths) / capacity) * 11 / 9 + 1  # the bound of best-fit decreasing


@pytest.mark.parametrize("kinds", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", range(8))
def test_many_rows_of_few_lengths_are_packed_as_if_one_by_one(seed, kinds):
    """Rows of one length fill several micro batches, several times each, and leave one half done."""
    generator = random.Random(seed)
    lengths = generator.choices([generator.randint(1, 60) for _ in range(kinds)], k=300)
    batches = batches_of(pack(lengths, 100))
    assert sorted(row for batch in batches for row in batch) == list(range(300))
    assert all(batch == sorted(batch, key=lambda row: (-lengths[row], row)) for batch in batches)
    assert sorted(fills(batches, lengths)) == sorted(map(sum, best_fit_decreasing(lengths, 100)))


def test_the_same_lengths_give_the_same_batches():
    lengths = lengths_of(1)
    for given in (np.array(lengths, dtype=np.int32), np.array(lengths, dtype=np.uint16)):
        assert batches_of(pack(given, CAPACITY)) == batches_of(pack(lengths, CAPACITY))
    assert batches_of(pack([3, 3, 6, 3, 3], 6)) == [[2], [0, 1], [3, 4]]  # equal ones in the order of their numbers
    assert {column.dtype for column in pack(lengths, CAPACITY)} == {np.dtype(np.int64)}


@pytest.mark.parametrize("length", [513, 0])
def test_a_row_that_fits_no_micro_batch_is_refused(length):
    with pytest.raises(ValueError, match=f"row 1 has {length} tokens, a micro batch takes 1 to 512"):
        pack([4, length], CAPACITY)
