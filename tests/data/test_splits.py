"""Guards that the share held out is the one asked for, and that equal conversations are never in both splits."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hpcsft.data.hashing import mix
from hpcsft.data.shards import ShardWriter
from hpcsft.data.splits import conversation_keys, count_splits, held_out, split_threshold
from tests.data.rows import Row, encoded, made_rows, write_shards

ALL = 2**64


@pytest.mark.parametrize("below", [0, 1, ALL // 3, ALL - 1, ALL])
def test_the_threshold_may_be_anything_from_none_to_all(below):
    keys = np.arange(1000, dtype=np.uint64)
    assert held_out("train", keys, 3, below).tolist() == [int(value) < below for value in mix(keys, 3)]
    assert held_out("validation", keys, 3, below).all()


def keys_of(distinct: int, copies: int = 1) -> np.ndarray:
    generator = random.Random(distinct)
    keys = [generator.getrandbits(64) for _ in range(distinct)] * copies
    return np.array(keys, dtype=np.uint64)


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(1000, 0.1, 100), (1000, 0.0, 0), (1000, 1e-9, 1), (10, 0.99, 9), (1000, 0.0996, 100), (2, 0.5, 1), (1, 0.5, 0)],
)
def test_the_share_held_out_is_exact(count, share, expected):
    """At least one when there is a share, and never all."""
    keys = keys_of(count)
    for seed in range(5):
        assert held_out("train", keys, seed, split_threshold(keys, seed, share)).sum() == expected
        assert split_threshold(keys[::-1], seed, share) == split_threshold(keys, seed, share)
    assert split_threshold(keys[:0], 0, share) == 0


def test_the_seed_decides_who_is_held_out():
    keys = keys_of(1000)
    chosen = [held_out("train", keys, seed, split_threshold(keys, seed, 0.1)) for seed in range(4)]
    assert len({tuple(some) for some in chosen}) == 4


def test_equal_conversations_are_held_out_together():
    keys = keys_of(50, copies=7)
    below = held_out("train", keys, 1, split_threshold(keys, 1, 0.1))
    assert below.sum() == 35  # 5 of 50, seven times each
    assert (below.reshape(7, 50) == below[:50]).all()
    below = held_out("train", keys, 1, split_threshold(keys, 1, 0.001))
    assert below.sum() == 7  # at least one, which is seven
    assert split_threshold(keys_of(1, copies=9), 1, 0.5) == 0  # training keeps the only one there is


def test_splits_are_counted_row_by_row(tmp_path):
    rows = [Row(number // 2, row.input_ids, row.labels) for number, row in enumerate(made_rows(60))]
    manifest = write_shards(tmp_path, rows, per_shard=14, below=ALL // 4)
    with ShardWriter(tmp_path, "validation", 0, "") as writer:
        writer.add(encoded(rows[:6]))
        own = writer.commit({})
    found = count_splits(tmp_path, [*manifest.shards, own], 0, ALL // 4)
    below = held_out("train", np.array([row.conversation for row in rows]), 0, ALL // 4)
    for split, expected in (
        ("train", [row for row, out in zip(rows, below, strict=True) if not out and row.conversation > 2]),
        ("validation", [row for row, out in zip(rows, below, strict=True) if out] + rows[:6]),
    ):
        assert found[split].rows == len(expected) > 6
        assert found[split].tokens == sum(len(row.input_ids) for row in expected)
        assert found[split].supervised_tokens == sum(row.num_supervised for row in expected)
        numbers = {row.conversation for row in expected[: len(expected) - 6 * (split == "validation")]}
        assert found[split].conversations == len(numbers) + 3 * (split == "validation")


def test_every_conversation_gives_its_key_once(tmp_path):
    """Of however many rows, and in however many batches of them."""
    rows = [row._replace(conversation=number // 4) for number, row in enumerate(made_rows(30))]
    shards = write_shards(tmp_path, rows, per_shard=12).shards
    assert conversation_keys(tmp_path, shards).tolist() == list(range(8))
    with ShardWriter(tmp_path, "train", 9, "") as writer:
        writer.add(encoded(rows[:8], {0: 5, 1: ALL - 1}))
        equal = writer.commit({})
    assert conversation_keys(tmp_path, [equal, *shards[:1]]).tolist() == [5, ALL - 1, 0, 1, 2]
    assert conversation_keys(tmp_path, []).dtype == np.uint64
