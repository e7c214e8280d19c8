"""Guards the order of training: every row once per epoch, no micro batch over its size and none emptier than it must
be, and any step found directly, so that a resumed or a differently sized job reads exactly the same rows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from hpcsft.data.packing import TrainingOrder, pack

CAPACITY = 512


def lengths_of(seed: int, count: int = 400, capacity: int = CAPACITY) -> list[int]:
    """Lengths as conversations have them: many short, some long, a few that fill a micro batch."""
    generator = random.Random(seed)
    drawn = [min(capacity, 1 + int(generator.lognormvariate(4.2, 1.0))) for _ in range(count)]
    return [*drawn, capacity, 1]


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


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[int]:
    """Fills of the bins when every row, the longest first, goes into the fullest bin that has room."""
    bins: list[int] = []
    for length in sorted(lengths, reverse=True):
        room = [i for i, fill in enumerate(bins) if fill + length <= capacity]
        if room:
            bins[max(room, key=bins.__getitem__)] += length
        else:
            bins.append(length)
    return bins


@pytest.mark.parametrize("seed", range(8))
def test_every_row_is_placed_once_and_no_batch_overflows(seed):
    lengths = lengths_of(seed)
    batches = pack(lengths, CAPACITY)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(batches) and max(fills(batches, lengths)) <= CAPACITY


@pytest.mark.parametrize("seed", range(8))
def test_batches_are_as_full_as_best_fit_makes_them(seed):
    lengths = lengths_of(seed)
    batches = pack(lengths, CAPACITY)
    assert len(batches) <= len(first_fit(lengths, CAPACITY))
    assert sorted(fills(batches, lengths)) == sorted(best_fit_decreasing(lengths, CAPACITY))
    assert len(batches) <= math.ceil(sum(lengths) / CAPACITY) * 11 / 9 + 1  # the bound of best-fit decreasing


def test_the_same_lengths_give_the_same_batches():
    assert pack(lengths_of(1), CAPACITY) == pack(list(lengths_of(1)), CAPACITY)
    assert pack([], CAPACITY) == []
    assert pack([3, 3, 3, 3], 6) == pack([3, 3, 3, 3], 6)


def test_a_row_over_the_capacity_is_refused():
    with pytest.raises(ValueError, match="row 1 has 513 tokens, more than the 512 of a micro batch"):
        pack([4, 513], CAPACITY)


MICRO, MAX_LENGTH = 4, 128


def order_of(packing: bool, per_step: int = 8, seed: int = 3, count: int = 200) -> TrainingOrder:
    return TrainingOrder(lengths_of(0, count, MAX_LENGTH), MICRO, MAX_LENGTH, packing, per_step, seed)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("per_step", [1, 3, 8, 1000])
def test_every_row_is_seen_once_in_every_epoch(packing, per_step):
    order = order_of(packing, per_step)
    lengths = lengths_of(0, 200, MAX_LENGTH)
    for epoch in range(3):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        batches = [batch for step in steps for batch in order.step(step)]
        assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
        assert all(len(order.step(step)) == per_step for step in steps)
        filled = [batch for batch in batches if batch]
        assert batches[len(filled) :] == [[]] * (len(batches) - len(filled)) and len(batches) - len(filled) < per_step
        if packing:
            assert max(fills(filled, lengths)) <= MICRO * MAX_LENGTH
        else:
            assert [len(batch) for batch in filled[:-1]] == [MICRO] * (len(filled) - 1)
            assert len(filled) == math.ceil(len(lengths) / MICRO)


@pytest.mark.parametrize("packing", [True, False])
def test_any_step_is_found_without_those_before_it(packing):
    order = order_of(packing)
    total = 3 * order.steps_per_epoch
    in_sequence = [order.step(step) for step in range(total)]
    assert [order_of(packing).step(step) for step in range(total)] == in_sequence
    assert [order.step(step) for step in reversed(range(total))] == in_sequence[::-1]


@pytest.mark.parametrize("packing", [True, False])
def test_the_rows_of_a_step_do_not_depend_on_the_number_of_ranks(packing):
    """As the training loop shares them: rank r of n takes every n-th micro batch."""
    order = order_of(packing)
    for step in range(2 * order.steps_per_epoch):
        for world_size in (1, 2, 4, 8):
            shares = [order.step(step)[rank::world_size] for rank in range(world_size)]
            assert {len(share) for share in shares} == {order.per_step // world_size}
            rows = sorted(row for share in shares for batch in share for row in batch)
            assert rows == sorted(row for batch in order.step(step) for row in batch) != []


@pytest.mark.parametrize("packing", [True, False])
def test_epochs_and_seeds_have_their_own_order(packing):
    def epoch_of(seed: int, epoch: int) -> list[list[int]]:
        order = order_of(packing, seed=seed)
        start = epoch * order.steps_per_epoch
        return [batch for step in range(start, start + order.steps_per_epoch) for batch in order.step(step)]

    orders = [epoch_of(seed, epoch) for seed in (3, 4) for epoch in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    assert epoch_of(3, 1) == orders[1]


def test_the_order_is_no_order_of_lengths():
    """Packing sorts by length; training must not go from the longest rows to the shortest."""
    order, lengths = order_of(True, per_step=1), lengths_of(0, 200, MAX_LENGTH)
    longest = [max(lengths[row] for row in order.step(step)[0]) for step in range(order.steps_per_epoch)]
    assert longest != sorted(longest, reverse=True)
