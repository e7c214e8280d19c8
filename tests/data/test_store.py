"""Guards what runs share: a shard counts only if all of it is there and it is the one that was asked for, and a run
keeps its own whatever becomes of the cache.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcsft.data import store
from hpcsft.data.quarantine import BadRow
from hpcsft.data.shards import Shard, ShardWriter, shard_files
from hpcsft.data.store import take_shard, usable_cache, whole_shard
from tests.data.rows import encoded, made_rows

BAD = BadRow(file="a.jsonl", row=3, reason="why", excerpt="{")


def write_shard(folder: Path, seed: int = 0, fingerprint: str = "f", bad: tuple[BadRow, ...] = (BAD,)) -> Shard:
    folder.mkdir(exist_ok=True)
    with ShardWriter(folder, "train", 2, fingerprint) as writer:
        writer.add(encoded(made_rows(20, seed)))
        return writer.commit({"conversations_read": 21}, bad)


def test_a_cache_is_private_to_the_user(tmp_path):
    assert usable_cache(tmp_path / ".cache") and usable_cache(tmp_path / ".cache")
    assert (tmp_path / ".cache").stat().st_mode & 0o777 == 0o700


def test_a_cache_that_cannot_be_used_is_told(tmp_path, monkeypatch):
    """In a runs_dir that a group shares, the cache is the private one of whoever came first."""
    (tmp_path / "file").touch()
    assert not usable_cache(tmp_path / "file" / ".cache")
    monkeypatch.setattr(store.os, "access", lambda *_: False)  # root, who runs tests in containers, may do anything
    assert not usable_cache(tmp_path / ".cache")


def test_a_whole_shard_is_found(tmp_path):
    written = write_shard(tmp_path)
    assert whole_shard(tmp_path, "train", 2, "f") == written
    assert whole_shard(tmp_path, "train", 1, "f") is None
    assert whole_shard(tmp_path, "validation", 2, "f") is None


def test_a_shard_of_other_data_or_rules_is_none(tmp_path):
    write_shard(tmp_path)
    assert whole_shard(tmp_path, "train", 2, "g") is None


@pytest.mark.parametrize("which", ["rows", "quarantine", "record"])
def test_a_shard_that_lacks_a_file_is_none(tmp_path, which):
    write_shard(tmp_path)
    getattr(shard_files(tmp_path, "train", 2), which).unlink()
    assert whole_shard(tmp_path, "train", 2, "f") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"source": "train"}'])
def test_a_damaged_record_is_none(tmp_path, text):
    write_shard(tmp_path)
    shard_files(tmp_path, "train", 2).record.write_text(text)
    assert whole_shard(tmp_path, "train", 2, "f") is None


def test_a_shard_that_was_cut_is_none(tmp_path):
    write_shard(tmp_path)
    file = shard_files(tmp_path, "train", 2).rows
    os.truncate(file, file.stat().st_size - 1)
    assert whole_shard(tmp_path, "train", 2, "f") is None


def test_a_shard_is_taken_without_a_copy_and_outlives_the_cache(tmp_path):
    cache, run = tmp_path / "cache", tmp_path / "run"
    written = write_shard(cache)
    run.mkdir()
    take_shard(cache, run, "train", 2)
    for theirs, ours in zip(shard_files(cache, "train", 2), shard_files(run, "train", 2), strict=True):
        assert theirs.stat().st_ino == ours.stat().st_ino
        theirs.unlink()
    assert whole_shard(run, "train", 2, "f") == written
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in shard_files(run, "train", 2))


def test_a_filesystem_without_links_gets_a_copy(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(store.os, "link", refuse)
    cache, run = tmp_path / "cache", tmp_path / "run"
    written = write_shard(cache)
    run.mkdir()
    take_shard(cache, run, "train", 2)
    assert whole_shard(run, "train", 2, "f") == written
    for theirs, ours in zip(shard_files(cache, "train", 2), shard_files(run, "train", 2), strict=True):
        assert theirs.read_bytes() == ours.read_bytes() and theirs.stat().st_ino != ours.stat().st_ino


def test_what_stood_there_before_is_replaced(tmp_path):
    """Of an older state of the data: its rows and its bad rows must not be mixed with the new ones."""
    cache, run = tmp_path / "cache", tmp_path / "run"
    write_shard(run, seed=1, fingerprint="old")
    written = write_shard(cache, bad=())
    take_shard(cache, run, "train", 2)
    assert whole_shard(run, "train", 2, "f") == written
    assert not shard_files(run, "train", 2).quarantine.exists()
