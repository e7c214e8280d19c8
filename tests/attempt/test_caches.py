"""A home that takes no files stands in no job's way."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcsft.attempt.caches import ALWAYS, WITHOUT_HOME, takes_files, use_node_caches


@pytest.fixture
def tiny_home(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of one page."""
    home = tmp_path / "home"
    home.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(home)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount here")
    yield home
    subprocess.run(["umount", "-l", str(home)], check=True)


def environment(home: Path, temporary: Path) -> dict[str, str]:
    return {"HOME": str(home), "TMPDIR": str(temporary)}


def test_with_a_home_only_tritons_cache_is_on_the_node(tmp_path):
    environ = environment(tmp_path, tmp_path)
    use_node_caches(environ)
    assert environ.keys() - {"HOME", "TMPDIR"} == set(ALWAYS)
    folder = Path(environ["TRITON_CACHE_DIR"])
    assert folder.is_dir() and folder.parent.stat().st_mode & 0o777 == 0o700


def test_a_home_that_is_full_or_read_only_is_not_used(tiny_home, tmp_path):
    assert takes_files(str(tiny_home))
    (tiny_home / "ballast").write_bytes(b"x" * 4096)
    assert not takes_files(str(tiny_home))
    environ = environment(tiny_home, tmp_path)
    use_node_caches(environ)
    assert set(ALWAYS) | set(WITHOUT_HOME) <= environ.keys()
    (tiny_home / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_home)], check=True)
    assert not takes_files(str(tiny_home))


def test_what_a_user_has_placed_stays_and_a_home_that_is_not_there_is_none(tmp_path):
    environ = {**environment(tmp_path / "none", tmp_path), "TRITON_CACHE_DIR": "/scratch/mine"}
    use_node_caches(environ)
    assert environ["TRITON_CACHE_DIR"] == "/scratch/mine" and "TORCH_EXTENSIONS_DIR" in environ


def test_a_folder_of_that_name_that_others_can_write_is_not_used(tmp_path):

    folder = tmp_path / f"hpcsft-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    environ = environment(tmp_path, tmp_path)
    use_node_caches(environ)
    assert "TRITON_CACHE_DIR" not in environ
