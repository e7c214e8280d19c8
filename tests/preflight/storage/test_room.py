"""A run that could not be written, or not to its end: found by writing, and by counting what it takes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpcsft.inputs import check_inputs
from hpcsft.plan import make_plan
from hpcsft.preflight.storage import room
from hpcsft.preflight.storage.filesystems import read_mounts
from hpcsft.preflight.storage.quota import Quota
from hpcsft.preflight.storage.room import existing_folder, file_findings, probe, room_findings, storage_findings
from hpcsft.spec import parse_spec
from tests.preflight.made import planned

GB = 10**9


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def found(values, **changed):
    spec = parse_spec({**values, **changed})
    return list(storage_findings(spec, make_plan(spec), check_inputs(spec), read_mounts()))


def test_a_folder_that_can_be_written_is_fine_and_is_left_as_it_was(spec_values, tmp_path, home):
    before = sorted(tmp_path.rglob("*"))
    assert found(spec_values, runs_dir=str(tmp_path / "a" / "b")) == []
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_folder(spec_values, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "x")
    for name, reason in (("file", "a file, not a folder"), ("file/runs", "a file"), ("link", "a link that leads")):
        (error, *_) = found(spec_values, runs_dir=str(tmp_path / name))
        assert error.level == "error" and reason in error.message and not error.forcible


@pytest.fixture
def mounted(tmp_path: Path):
    """Mount a tmpfs with options; gone after the test."""
    places = []

    def mount(options: str) -> Path:
        place = tmp_path / f"mount{len(places)}"
        place.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True).returncode:
            pytest.skip("mounting a filesystem needs root")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", place], check=True)


def test_a_read_only_and_a_full_filesystem(spec_values, mounted):
    read_only, full = mounted("ro"), mounted("size=64k")
    (error,) = found(spec_values, runs_dir=str(read_only / "runs"))
    assert error.message.endswith(f"runs cannot be made: {read_only}: Read-only file system")
    (full / "file").write_bytes(bytes(64 * 1024))
    (error,) = found(spec_values, runs_dir=str(full))
    assert error.message == f"no run can be written: {full}: No space left on device"
    assert os.listdir(full) == ["file"]


def test_a_slow_filesystem_is_told(spec_values, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "probe", lambda folder: 2.5)
    (slow,) = found(spec_values, runs_dir=str(tmp_path))
    assert slow.level == "warning" and "writing a small file took 2.5 s" in slow.message


def test_a_home_that_cannot_be_written_is_a_warning(spec_values, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/nobody")
    (warning,) = found(spec_values)
    assert (warning.level, warning.where) == ("warning", "$HOME")
    assert "caches of torch and triton cannot be written: /proc/nobody" in warning.message
    assert "TRITON_CACHE_DIR" in str(warning.hint)


def test_a_small_home_is_a_warning(spec_values, mounted, monkeypatch):
    monkeypatch.setenv("HOME", str(mounted("size=1m")))
    (warning,) = found(spec_values)
    assert "only 1.0 MB are left there" in warning.message


def disk(total: int, free: int | None) -> dict:
    return {
        "checkpoint_bytes": 90 * GB,
        "checkpoints": 3,
        "export_bytes": 14 * GB,
        "exports": 3,
        "shards_bytes": GB,
        "total_bytes": total,
        "folder": "/scratch/runs",
        "free_bytes": free,
    }


def test_room():
    needed = 313 * GB
    assert not list(room_findings(disk(needed, needed), needed))
    assert not list(room_findings(disk(needed, None), None))
    (warning,) = room_findings(disk(needed, 200 * GB), None)
    assert warning.level == "warning" and "200 GB is free on its filesystem" in warning.message
    assert "3 checkpoints of 90.0 GB, 3 exports of 14.0 GB" in warning.message
    (error,) = room_findings(disk(needed, 10**15), 100 * GB)
    assert (error.level, error.forcible) == ("error", True) and "100 GB is left of your quota" in error.message


def test_number_of_files():
    spec, plan = planned()
    assert not list(file_findings(spec, plan, None, []))
    assert not list(file_findings(spec, plan, 10_000, []))
    (warning,) = file_findings(spec, plan, 1000, [])
    assert warning.level == "warning" and "1,000 files are left on its filesystem" in warning.message
    quota = Quota(filesystem="x", used_bytes=0, limit_bytes=None, used_files=90, limit_files=100)
    (error,) = file_findings(spec, plan, None, [quota])
    assert error.level == "error" and "10 files are left of your quota" in error.message


def test_the_nearest_folder_and_the_probe(tmp_path):
    assert existing_folder(tmp_path / "a" / "b") == tmp_path
    assert 0 <= probe(tmp_path) < 60 and list(tmp_path.iterdir()) == [tmp_path / "home"]
    with pytest.raises(FileNotFoundError):
        probe(tmp_path / "none")


def test_filesystems_that_count_nothing_are_not_full(spec_values, monkeypatch):
    """They report no files left, or no size at all, and take the file of the trial."""
    real = os.statvfs

    def told(path):
        values = list(real(path))
        values[2] = values[3] = values[4] = values[6] = values[7] = 0  # f_blocks, f_bfree, f_bavail, f_ffree, f_favail
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", told)
    assert not [finding for finding in found(spec_values) if finding.where == "runs_dir"]
