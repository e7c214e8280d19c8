"""Guards that a shard is whole or not there, that the same rows make the same bytes, and that damage is noticed before
training and not in the middle of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hpcsft.data.quarantine import BadRow
from hpcsft.data.shards import SCHEMA, EncodedRows, Shard, ShardWriter, map_batches, read_manifest, shard_files
from hpcsft.data.splits import count_splits
from hpcsft.errors import StageError
from hpcsft.records import read_json, read_jsonl, write_json
from tests.data.rows import encoded, made_rows, write_shards

ALL = 2**64


BAD = BadRow(file="a.jsonl", row=7, reason="not UTF-8 text", excerpt="")


def write(folder: Path, *batches: EncodedRows, number: int = 0, bad_rows: Sequence[BadRow] = ()) -> Shard:
    with ShardWriter(folder, "train", number, "digest") as writer:
        for rows in batches:
            writer.add(rows)
        return writer.commit({"kept": 3, "dropped": 1}, bad_rows)


def test_a_shard_holds_its_rows_and_a_record_of_them(tmp_path):
    rows = made_rows(8)
    shard = write(tmp_path, encoded(rows[:5], {0: ALL - 1}), encoded([]), encoded(rows[5:]), number=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train-00003.arrow", "train-00003.json"]
    assert Shard.model_validate(read_json(tmp_path / "train-00003.json")) == shard
    assert (shard.source, shard.number, shard.fingerprint) == ("train", 3, "digest")
    assert shard.file == shard_files(tmp_path, "train", 3).rows.name == "train-00003.arrow"
    assert shard.size_bytes == (tmp_path / shard.file).stat().st_size
    assert (shard.rows, shard.tokens) == (8, sum(len(row.input_ids) for row in rows))
    assert shard.supervised_tokens == sum(row.num_supervised for row in rows)
    assert (list(shard.counts), shard.bad_rows) == (["dropped", "kept"], 0)
    found = pa.Table.from_batches(map_batches(tmp_path / shard.file))
    assert found.schema == SCHEMA
    assert found.column("key").to_pylist() == [ALL - 1, *range(1, 8)]
    for name in ("conversation", "input_ids", "labels", "num_supervised"):
        assert found.column(name).to_pylist() == [getattr(row, name) for row in rows]


def test_a_conversation_of_several_rows_is_counted_once(tmp_path):
    """Also when its rows come in two batches."""
    rows = [row._replace(conversation=number) for row, number in zip(made_rows(6), [0, 4, 4, 4, 7, 7], strict=True)]
    shard = write(tmp_path, encoded(rows[:3]), encoded(rows[3:]))
    assert shard.conversations == 3
    assert count_splits(tmp_path, [shard], 0, 0)["train"].conversations == 3


def test_a_shard_without_rows_is_a_shard(tmp_path):
    shard = write(tmp_path)
    assert (shard.rows, shard.tokens, shard.conversations) == (0, 0, 0)
    assert map_batches(tmp_path / shard.file) == []
    assert count_splits(tmp_path, [shard], 0, 5)["validation"].rows == 0


def test_the_same_rows_make_the_same_bytes(tmp_path):
    """Wherever the arrays come from: parts of larger ones included."""
    rows = made_rows(9)
    (tmp_path / "again").mkdir()
    first = write(tmp_path, encoded(rows[2:7]))
    whole = encoded(rows)
    part = EncodedRows(*(column[2:7] for column in whole))._replace(
        offsets=whole.offsets[2:8], input_ids=whole.input_ids, labels=whole.labels
    )
    assert write(tmp_path / "again", part) == first
    assert (tmp_path / "again" / first.file).read_bytes() == (tmp_path / first.file).read_bytes()


def test_rows_are_handed_to_arrow_without_a_copy():
    rows = encoded(made_rows(4))
    assert np.shares_memory(rows.table().column("input_ids").values.to_numpy(), rows.input_ids)


def test_bad_rows_stand_beside_the_shard(tmp_path):
    shard, files = write(tmp_path, bad_rows=[BAD, BAD]), shard_files(tmp_path, "train", 0)
    assert (shard.bad_rows, [BadRow.model_validate(row) for row in read_jsonl(files.quarantine)]) == (2, [BAD, BAD])
    assert all(path.exists() for path in files)


def test_a_shard_that_is_left_halfway_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, "train", 0, "") as writer:
        writer.add(encoded(made_rows(4)))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_no_record_says_that_a_shard_is_whole_before_it_has_its_name(tmp_path):
    (tmp_path / "train-00000.arrow").mkdir()
    with pytest.raises(IsADirectoryError):
        write(tmp_path, encoded(made_rows(4)))
    assert [path.name for path in tmp_path.iterdir()] == ["train-00000.arrow"]


@pytest.mark.parametrize("damage", [None, "removed", "cut"])
def test_a_damaged_shard_is_named(tmp_path, damage):
    manifest = write_shards(tmp_path, made_rows(10), per_shard=4, below=ALL // 2)
    write_json(tmp_path / "manifest.json", manifest)
    file = tmp_path / manifest.shards[1].file
    if damage is None:
        assert read_manifest(tmp_path / "manifest.json") == manifest
        assert manifest.total("train", "rows") + manifest.total("validation", "rows") == 10
        assert manifest.total("test", "rows") == 0
        return
    if damage == "removed":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(StageError, match=rf"{file.name}: missing or not of the size in the manifest"):
        read_manifest(tmp_path / "manifest.json")
