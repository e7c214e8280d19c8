"""Guards that a shard that is missing or cut off is noticed before training, not in the middle of it."""

from __future__ import annotations

import os

import pytest

from hpcsft.data.shards import read_manifest
from hpcsft.errors import StageError
from hpcsft.records import write_json
from tests.data.rows import rows_of, write_shards


@pytest.mark.parametrize("damage", [None, "removed", "cut"])
def test_a_damaged_shard_is_named(tmp_path, tiny_model, conversations, damage):
    manifest = write_shards(tmp_path, rows_of(tiny_model, conversations[:10]), per_shard=4)
    write_json(tmp_path / "manifest.json", manifest)
    file = tmp_path / manifest.shards[1].files[0].file
    if damage is None:
        assert read_manifest(tmp_path / "manifest.json") == manifest
        assert manifest.total("train", "rows") == 10 and not manifest.files("validation")
        return
    if damage == "removed":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(StageError, match=rf"{file.name}: missing or not of the size in the manifest"):
        read_manifest(tmp_path / "manifest.json")
