"""Guards the order of training: every row once per epoch, and any step found directly, so that a resumed or a
differently sized job reads exactly the same rows.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from hpcsft.data.order import TrainingOrder
from tests.data.test_packing import fills, lengths_of

MICRO, MAX_LENGTH = 4, 128


def order_of(packing: bool, per_step: int = 8, seed: int = 3, count: int = 200) -> TrainingOrder:
    return TrainingOrder(lengths_of(0, count, MAX_LENGTH), MICRO, MAX_LENGTH, packing, per_step, seed)


def step_of(order: TrainingOrder, step: int) -> list[list[int]]:
    return [batch.tolist() for batch in order.step(step)]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("per_step", [1, 3, 8, 1000])
def test_every_row_is_seen_once_in_every_epoch(packing, per_step):
    order = order_of(packing, per_step)
    lengths = lengths_of(0, 200, MAX_LENGTH)
    for epoch in range(3):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        batches = [batch for step in steps for batch in step_of(order, step)]
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
    in_sequence = [step_of(order, step) for step in range(total)]
    assert [step_of(order_of(packing), step) for step in range(total)] == in_sequence
    assert [step_of(order, step) for step in reversed(range(total))] == in_sequence[::-1]


def test_a_far_step_is_found_at_once():
    """Nothing is done for the epochs before it."""
    order = order_of(True, per_step=1000)
    assert order.steps_per_epoch == 1
    assert sorted(np.concatenate(order.step(10**9)).tolist()) == list(range(202))


@pytest.mark.parametrize("packing", [True, False])
def test_the_rows_of_a_step_do_not_depend_on_the_number_of_ranks(packing):
    """As the training loop shares them: rank r of n takes every n-th micro batch."""
    order = order_of(packing)
    for step in range(2 * order.steps_per_epoch):
        for world_size in (1, 2, 4, 8):
            shares = [step_of(order, step)[rank::world_size] for rank in range(world_size)]
            assert {len(share) for share in shares} == {order.per_step // world_size}
            rows = sorted(row for share in shares for batch in share for row in batch)
            assert rows == sorted(row for batch in step_of(order, step) for row in batch) != []


@pytest.mark.parametrize("packing", [True, False])
def test_epochs_and_seeds_have_their_own_order(packing):
    def epoch_of(seed: int, epoch: int) -> list[list[int]]:
        order = order_of(packing, seed=seed)
        start = epoch * order.steps_per_epoch
        return [batch for step in range(start, start + order.steps_per_epoch) for batch in step_of(order, step)]

    orders = [epoch_of(seed, epoch) for seed in (3, 4) for epoch in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    assert epoch_of(3, 1) == orders[1]


def test_the_order_never_changes_from_one_release_to_the_next():
    """Or a run that goes on after an update would learn some rows twice and others never."""
    lengths = [5, 9, 2, 7, 7, 3, 8, 1]
    packed = TrainingOrder(lengths, 2, 6, True, per_step=1, seed=42)
    assert [step_of(packed, step)[0] for step in range(8)] == [
        *([3, 0], [1, 5], [6, 2, 7], [4]),
        *([3, 0], [6, 2, 7], [1, 5], [4]),
    ]
    flat = TrainingOrder(lengths, 3, 9, False, per_step=1, seed=42)
    assert [step_of(flat, step)[0] for step in range(6)] == [
        *([2, 0, 5], [1, 3, 6], [4, 7]),
        *([5, 2, 1], [4, 7, 0], [3, 6]),
    ]


def test_the_order_is_no_order_of_lengths():
    """Packing sorts by length; training must not go from the longest rows to the shortest."""
    order, lengths = order_of(True, per_step=1), lengths_of(0, 200, MAX_LENGTH)
    longest = [max(lengths[row] for row in order.step(step)[0]) for step in range(order.steps_per_epoch)]
    assert longest != sorted(longest, reverse=True)
