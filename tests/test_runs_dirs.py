"""Folders of runs are remembered where they can be, and what stands against it is nobody's trouble."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest

from hpcsft.runs_dirs import known_runs, known_runs_dirs, memory_file, remember_runs_dir, runs_in
from tests.places import bare_run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has submitted nothing yet, in a folder of their own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def test_a_folder_is_remembered_once_and_privately(home):
    for _ in range(2):
        for name in ("a", "b"):
            (home / name).mkdir(exist_ok=True)
            remember_runs_dir(home / name)
    file = home / "state" / "hpcsft" / "runs_dirs"
    assert file.read_text() == f"{home}/a\n{home}/b\n"
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in (file, file.parent)] == [0o600, 0o700]
    assert known_runs_dirs() == [home / "a", home / "b"]


def test_a_torn_line_does_not_swallow_the_next(home):
    memory_file().parent.mkdir(parents=True)
    memory_file().write_text("/torn")
    (home / "a").mkdir()
    remember_runs_dir(home / "a")
    assert known_runs_dirs() == [home / "a"]


def test_without_xdg_state_home_it_stands_in_the_home(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    for state in ("", "relative/state"):  # which the XDG specification tells to ignore
        monkeypatch.setenv("XDG_STATE_HOME", state)
        assert memory_file() == home / ".local" / "state" / "hpcsft" / "runs_dirs"


@pytest.mark.parametrize("state", ["/dev/null/state", "/proc/state"])
def test_a_home_that_cannot_be_written_is_no_error(state, home, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", state)
    remember_runs_dir(home)
    assert known_runs_dirs() == []


def test_a_full_home_is_no_error(home):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # no byte fits into any file
    try:
        remember_runs_dir(home)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert known_runs_dirs() == [] and memory_file().read_text() == ""


def test_a_memory_that_is_no_text_is_no_error(home):
    memory_file().parent.mkdir(parents=True)
    memory_file().write_bytes(b"\xff\xfe\x00")
    remember_runs_dir(home)
    assert known_runs_dirs() == []


def test_the_places_in_their_order_without_the_dead_and_the_same_ones(home, monkeypatch):
    for name in ("cwd/runs", "told", "remembered"):
        (home / name).mkdir()
    (home / "alias").symlink_to(home / "told")
    for name in ("gone", "remembered", "alias"):
        remember_runs_dir(home / name)
    monkeypatch.setenv("HPCSFT_RUNS_DIR", str(home / "told"))
    assert known_runs_dirs() == [Path("runs"), home / "told", home / "remembered"]


def test_runs_are_told_newest_first_over_all_places(home):
    old, new = bare_run(home / "a", "old-1", age=9), bare_run(home / "a", "new-1", age=1)
    middle = bare_run(Path("runs"), "middle-1", age=5)
    remember_runs_dir(home / "a")
    assert [run.path for run in known_runs()] == [new.path, middle.path, old.path]
    assert [run.path for run in runs_in(home / "a")] == [new.path, old.path]


def test_what_else_lies_in_a_folder_is_no_run(home):
    run = bare_run(home / "a", "x-1")
    run.submission.unlink()  # made, not submitted yet
    bare_run(home / "a", ".cache-1")
    (home / "a" / "experiments").mkdir()
    (home / "a" / "experiments" / "spec.json").write_text("{}")
    (home / "a" / "notes.txt").write_text("")
    assert [run.path for run in runs_in(home / "a")] == [run.path]
