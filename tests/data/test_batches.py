"""Guards what reaches the model: the rows as they were written, each learnt token predicted from the one before it in
its own row, and counts that agree with what the loss sums over.
"""

from __future__ import annotations

import pytest
import torch

from hpcsft.data.batches import RowStore
from hpcsft.data.encode import IGNORE_INDEX, Row
from tests.data.reference import long_dialogs
from tests.data.rows import open_rows, rows_of, write_shards


@pytest.fixture(scope="module")
def rows(tiny_model, conversations) -> list[Row]:
    dialogs = conversations[:20] + long_dialogs(conversations[-40:])
    return [*rows_of(tiny_model, dialogs), Row(99, [7, 8, 9], [7, IGNORE_INDEX, 9])]  # the last: loss from the start


@pytest.fixture(scope="module")
def store(tmp_path_factory, rows) -> RowStore:
    return open_rows(tmp_path_factory.mktemp("shards"), rows)


def test_rows_are_read_as_they_were_written(store, rows):
    assert len(store) == len(rows) > 14  # several shards
    assert store.lengths == [len(row.input_ids) for row in rows]
    assert store.num_supervised == [row.num_supervised for row in rows]
    for number, row in enumerate(rows):
        batch = store.batch([number])
        assert batch.input_ids.tolist() == [row.input_ids]
        assert store.tokens([number, 0]) == len(row.input_ids) + len(rows[0].input_ids)


@pytest.mark.parametrize("chosen", [[0], [5, 3, 29], [30, 0], [30, 30], list(range(31))])
def test_every_learnt_token_is_predicted_from_the_one_before_it(store, rows, chosen):
    assert len(rows) == 31
    batch = store.batch(chosen)
    input_ids = [token for number in chosen for token in rows[number].input_ids]
    assert batch.input_ids.shape == batch.position_ids.shape == (1, len(input_ids))
    assert batch.input_ids[0].tolist() == input_ids
    expected, start = [], 0
    for number in chosen:
        labels = rows[number].labels
        assert batch.position_ids[0, start : start + len(labels)].tolist() == list(range(len(labels)))
        expected += [(start + i - 1, labels[i]) for i in range(1, len(labels)) if labels[i] != IGNORE_INDEX]
        start += len(labels)
    assert list(zip(batch.positions.tolist(), batch.targets.tolist(), strict=True)) == expected
    assert torch.equal(batch.input_ids[0, batch.positions + 1], batch.targets)
    assert store.supervised(chosen) == len(expected)
    assert {tensor.dtype for tensor in batch} == {torch.int64}


def test_reading_a_batch_changes_no_row(store):
    """Labels of the first position are overwritten in a copy, never in the memory-mapped file."""
    before = [store.batch([30]), store.batch([30])]
    assert all(torch.equal(a, b) for a, b in zip(*before, strict=True))
    assert store.rows[30]["labels"].tolist() == [7, IGNORE_INDEX, 9]


def test_a_batch_without_rows_has_no_loss(store):
    batch = store.batch([])
    assert batch.input_ids.shape == batch.position_ids.shape == (1, 2)
    assert len(batch.positions) == len(batch.targets) == store.supervised([]) == store.tokens([]) == 0


def test_a_split_without_rows_is_empty(tmp_path, rows):
    manifest = write_shards(tmp_path, rows, per_shard=100)
    store = RowStore(tmp_path, manifest, "validation")
    assert (len(store), store.lengths, store.num_supervised) == (0, [], [])


def test_a_batch_moves_as_a_whole(store):
    moved = store.batch([0]).to(torch.device("meta"))
    assert {tensor.device.type for tensor in moved} == {"meta"}
