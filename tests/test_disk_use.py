"""What a run takes is what its files hold; what runs share is counted once in the sum."""

from __future__ import annotations

import os

import pytest

from hpcsft.disk_use import DiskMeter, folder_bytes, size_text
from tests.places import bare_run


def put(path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def test_the_parts_of_a_run(tmp_path):
    run = bare_run(tmp_path / "runs", "a-00000000")
    rest = sum(path.stat().st_size for path in run.path.iterdir())
    put(run.step_folder(2) / "deep" / "shard.bin", 1000)
    put(run.epoch_model(1) / "model.safetensors", 200)
    put(run.data / "train-00000.arrow", 30)
    put(run.logs / "train" / "1_0" / "0.out", 4)
    (run.path / "elsewhere").symlink_to("/usr")
    use = DiskMeter().measure(run)
    link = os.lstat(run.path / "elsewhere").st_size
    assert (use.checkpoints_bytes, use.models_bytes, use.data_bytes) == (1000, 200, 30)
    assert use.rest_bytes == rest + 4 + link
    assert use.total_bytes == 1230 + use.rest_bytes and use.shared_bytes == 0


def test_shared_shards_are_counted_once_in_the_sum(tmp_path):
    runs = [bare_run(tmp_path / "runs", f"{name}-00000000") for name in "ab"]
    meter = DiskMeter()
    alone = sum(DiskMeter().measure(run).total_bytes for run in runs)
    put(runs[0].data_cache("f") / "train.arrow", 5000)
    for run in runs:
        run.data.mkdir()
        os.link(runs[0].data_cache("f") / "train.arrow", run.data / "train.arrow")
    uses = [meter.measure(run) for run in runs]
    assert [(use.data_bytes, use.shared_bytes) for use in uses] == [(5000, 5000)] * 2
    assert (meter.total_bytes, meter.shared_bytes) == (alone + 5000, 5000)


def test_a_folder_and_one_that_is_not_there(tmp_path):
    put(tmp_path / "a" / "b" / "c", 7)
    put(tmp_path / "a" / "d", 3)
    assert (folder_bytes(tmp_path / "a"), folder_bytes(tmp_path / "none")) == (10, 0)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_960, "100 kB"), (999_499, "999 kB"), (999_600, "1.0 MB"),
     (14_960_000_000, "15.0 GB"), (2.5e12, "2.5 TB"), (4.2e15, "4200 TB")],
)  # fmt: skip
def test_sizes_in_words(num_bytes, text):
    assert size_text(num_bytes) == text
