"""Guards what reaches the model: the rows as they were written, each learnt token predicted from the one before it in
its own row, and counts that agree with what the loss sums over.
"""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pytest
import torch

from hpcsft.data.batches import Batch, RowStore
from hpcsft.data.shards import IGNORE_INDEX, Shard, ShardWriter
from hpcsft.data.splits import held_out
from tests.data.rows import Row, encoded, made_rows, manifest_of, open_rows, write_shards


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [*made_rows(30), Row(99, [7, 8, 9], [7, IGNORE_INDEX, 9])]  # the last: loss from the start


@pytest.fixture(scope="module")
def store(tmp_path_factory, rows) -> RowStore:
    return open_rows(tmp_path_factory.mktemp("shards"), rows)


def check_rows(store: RowStore, rows: list[Row]) -> None:
    assert store.lengths.tolist() == [len(row.input_ids) for row in rows]
    assert store.num_supervised.tolist() == [row.num_supervised for row in rows]
    assert store.lengths.dtype == store.num_supervised.dtype == np.int32
    for number, row in enumerate(rows):
        assert [column.tolist() for column in store.row(number)] == [row.input_ids, row.labels]


def test_rows_are_read_as_they_were_written(store, rows):
    assert len(store) == len(rows) > 14  # several shards
    check_rows(store, rows)
    assert store.tokens([3, 0, 3]) == 2 * len(rows[3].input_ids) + len(rows[0].input_ids)
    assert store.tokens() == sum(len(row.input_ids) for row in rows)
    assert store.supervised() == sum(row.num_supervised for row in rows)
    assert type(store.tokens([0])) is type(store.supervised([0])) is int  # metrics are written as JSON


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.lengths == other.lengths
    assert all(torch.equal(a, b) for a, b in zip(one[:4], other[:4], strict=True))


@pytest.mark.parametrize("chosen", [[0], [5, 3, 29], [30, 0], [30, 30], list(range(31))])
def test_every_learnt_token_is_predicted_from_the_one_before_it(store, rows, chosen):
    assert len(rows) == 31
    batch = store.batch(np.array(chosen))
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
    assert {tensor.dtype for tensor in batch[:4]} == {torch.int64}
    assert batch.lengths == tuple(len(rows[number].input_ids) for number in chosen)
    assert_equal(batch, store.batch(chosen))


def test_reading_a_batch_changes_no_row(store):
    """Labels of the first position are overwritten in a copy, never in the memory-mapped file."""
    before = [store.batch([30]), store.batch([30])]
    assert_equal(*before)
    assert store.row(30)[1].tolist() == [7, IGNORE_INDEX, 9]
    with pytest.raises(ValueError, match="read-only"):
        store.row(30)[1][0] = 1


@pytest.mark.parametrize("nothing", [[], np.empty(0, dtype=np.int64)])
def test_a_batch_without_rows_has_no_loss(store, nothing):
    batch = store.batch(nothing)
    assert batch.input_ids.shape == batch.position_ids.shape == (1, 2)
    assert len(batch.positions) == len(batch.targets) == store.supervised(nothing) == store.tokens(nothing) == 0


def test_each_split_has_its_own_rows_whole_conversations_each(tmp_path, rows):
    """And the rows of the source validation are held out whatever their keys; training goes without their doubles."""
    rows = [row._replace(conversation=number // 2) for number, row in enumerate(rows)]
    shards = write_shards(tmp_path, rows, per_shard=9).shards
    with ShardWriter(tmp_path, "validation", 0, "") as writer:
        writer.add(encoded(rows[:10]))
        own = writer.commit({})
    below = 2**64 // 3
    out = held_out("train", np.array([row.conversation for row in rows]), 5, below).tolist()
    manifest = manifest_of(tmp_path, [*shards, own], below, seed=5)
    train, validation = (RowStore(tmp_path, manifest, split) for split in ("train", "validation"))
    both = {row.conversation for row in rows[:10]}
    check_rows(train, [row for row, held in zip(rows, out, strict=True) if not held and row.conversation not in both])
    check_rows(validation, [row for row, held in zip(rows, out, strict=True) if held] + rows[:10])
    assert len(train) > 4 < len(validation) - 10 and not all(out[:10])
    for split, store in (("train", train), ("validation", validation)):
        assert manifest.total(split, "rows") == len(store)
        assert manifest.total(split, "tokens") == store.tokens()
        assert manifest.total(split, "supervised_tokens") == store.supervised()


def test_shards_and_batches_without_rows_are_passed_over(tmp_path, rows):
    shards: list[Shard] = []
    for number, part in enumerate(([], rows[:5], [], rows[5:6])):
        with ShardWriter(tmp_path, "train", number, "") as writer:
            writer.add(encoded(part))
            shards.append(writer.commit({}))
    check_rows(RowStore(tmp_path, manifest_of(tmp_path, shards), "train"), rows[:6])


def test_a_split_without_rows_is_empty(tmp_path, rows):
    store = RowStore(tmp_path, write_shards(tmp_path, rows, per_shard=100), "validation")
    assert (len(store), store.lengths.tolist(), store.num_supervised.tolist()) == (0, [], [])
    assert store.supervised() == store.tokens() == 0


def test_lists_that_do_not_start_at_zero_are_read_from_where_they_start(tmp_path, rows, monkeypatch):
    """Our files have none. Other writers keep parts of larger arrays, and labels may then start elsewhere than ids."""
    whole = encoded(rows).table()
    labels = pa.concat_arrays([pa.array([[1, 2, 3]], pa.list_(pa.int32())), whole.column("labels")])[1:]
    batch = whole.set_column(3, "labels", labels).slice(4, 20)
    assert batch.column("labels").offsets[0].as_py() != batch.column("input_ids").offsets[0].as_py() != 0
    manifest = write_shards(tmp_path, rows, per_shard=100)
    monkeypatch.setattr("hpcsft.data.batches.map_batches", lambda path: [batch])
    check_rows(RowStore(tmp_path, manifest, "train"), rows[4:24])


def test_many_shards_hold_no_file_open(tmp_path, rows):
    before = len(os.listdir("/proc/self/fd"))
    store = RowStore(tmp_path, write_shards(tmp_path, rows, per_shard=1), "train")
    assert len(os.listdir("/proc/self/fd")) == before and len(store) == len(rows)


def test_a_batch_moves_as_a_whole(store):
    batch = store.batch([0, 3])
    *tensors, lengths = batch.to(torch.device("meta"))
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert lengths == batch.lengths == tuple(store.lengths[[0, 3]].tolist())


def test_rows_are_named_after_their_conversations(tmp_path, rows):
    store = RowStore(tmp_path, write_shards(tmp_path, rows, per_shard=7), "train")
    names = [f"row {row.conversation + 1} of data.train" for row in rows]
    assert store.names(range(len(rows))) == names and store.names([30, 2]) == [names[30], names[2]]
