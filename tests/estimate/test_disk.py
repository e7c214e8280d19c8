"""What a run writes is compared with the room that there is, before a full disk stops it at night."""

from __future__ import annotations

import os

import pytest

from hpcsft.estimate.disk import disk_document, disk_warnings, free_bytes
from tests.estimate.models import LLAMA_7B, LLAMA_7B_PARAMETERS, shape_of, spec_of


def spec_in(folder, **train):
    return spec_of(train={"zero_stage": 2, "epochs": 3, **train}).model_copy(update={"runs_dir": str(folder)})


def test_kept_checkpoints_and_the_one_being_written_are_counted(tmp_path):
    found = disk_document(spec_in(tmp_path, checkpoint={"keep_last": 4}), 1000, 500)
    assert (found["checkpoint_bytes"], found["checkpoints"], found["checkpoints_bytes"]) == (14_000, 5, 70_000)
    assert (found["exports"], found["exports_bytes"]) == (3, 6_000)
    assert found["shards_bytes"] == 4_000
    assert found["total_bytes"] == 80_000
    assert found["fits"] is True and disk_warnings(found) == []


@pytest.mark.parametrize(("export", "size"), [("merged", LLAMA_7B_PARAMETERS), ("adapter", 39_976_960)])
def test_adapters_take_little_room(export, size, tmp_path):
    spec = spec_of(model={"lora": {"export": export}}).model_copy(update={"runs_dir": str(tmp_path)})
    found = disk_document(spec, LLAMA_7B_PARAMETERS, 500, shape=shape_of(LLAMA_7B))
    assert (found["checkpoint_bytes"], found["export_bytes"]) == (14 * 39_976_960, 2 * size)


@pytest.mark.parametrize(("quota_gb", "fits"), [(0.00004, False), (1.0, True), (None, True)])
def test_the_smaller_of_quota_and_filesystem_decides(quota_gb, fits, tmp_path):
    found = disk_document(spec_in(tmp_path), 1000, None, quota_gb)
    assert found["fits"] is fits
    assert (found["quota_bytes"] is None) == (quota_gb is None)


def test_what_does_not_fit_is_told(tmp_path):
    found = disk_document(spec_in(tmp_path), 10**15, None, 2.0)
    (warning,) = disk_warnings(found)
    assert str(tmp_path) in warning and "GB on its filesystem and 2.0 GB in your quota" in warning
    assert "train.checkpoint.keep_last" in warning


def test_the_folder_need_not_exist_yet(tmp_path):
    found = os.statvfs(tmp_path)
    room = free_bytes(str(tmp_path / "a" / "b"))
    assert room and abs(room - found.f_bavail * found.f_frsize) < 10**9
