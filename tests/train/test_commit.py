"""Guards the checkpoints: what is published is whole, what was damaged since is found whatever the damage, and an
attempt that was fenced off publishes nothing, however late it learns of it.
"""

from __future__ import annotations

import builtins
import errno
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpcsft.errors import Fenced
from hpcsft.records import write_json
from hpcsft.rundir import RunDir
from hpcsft.train import commit
from tests.train.saving import begin, damage, leftovers, save, stage, whole


@pytest.fixture
def run(tmp_path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.create()
    write_json(run.spec, {})  # which makes it a run
    return run


def test_a_save_is_published_whole_and_the_pointer_names_it(run):
    own = begin(run, 0)
    for step in (5, 10, 200):
        save(run, step, own)
        assert (run.checkpoints / "latest").read_text() == f"step-{step:06d}\n"
    assert whole(run) == [200, 10]
    folder, complete = commit.published(run)[0]
    assert folder == run.step_folder(200)
    assert (complete.step, complete.world_size, complete.zero_stage, complete.attempt) == (200, 2, 2, "44_0")
    assert set(complete.files) == {path.name for path in folder.iterdir()} - {commit.COMPLETE}
    assert {path.stat().st_mode & 0o777 for path in run.checkpoints.glob("step-*")} == {0o700}
    assert leftovers(run) == []


def test_what_stands_beside_a_checkpoint_goes_with_its_staging_folder(run):
    """DeepSpeed leaves a script there."""
    own = begin(run, 0)
    folder, files = stage(run, 5, own)
    (folder.parent / "zero_to_fp32.py").touch()
    commit.publish(run, folder, 2, 2, files, own)
    assert (whole(run), leftovers(run)) == ([5], [])


def test_nothing_is_visible_before_it_is_published(run):
    own = begin(run, 0)
    folder, files = stage(run, 5, own)
    assert commit.published(run) == [] and not list(run.checkpoints.glob("step-*"))
    commit.publish(run, folder, 2, 2, files, own)
    assert whole(run) == [5]


def test_the_newest_checkpoints_are_kept_by_number(run):
    own = begin(run, 0)
    for step in (999_998, 999_999, 1_000_000):
        save(run, step, own, keep=3)
    assert whole(run) == [1_000_000, 999_999, 999_998]
    save(run, 1_000_001, own, keep=1)
    assert whole(run) == [1_000_001] and len(list(run.checkpoints.glob("step-*"))) == 1


def test_an_attempt_that_was_taken_over_neither_publishes_nor_prunes(run):
    own = begin(run, 0)
    for step in (1, 2):
        save(run, step, own)
    folder, files = stage(run, 3, own)
    begin(run, 1)
    with pytest.raises((Fenced, FileNotFoundError)):
        commit.publish(run, folder, 2, 2, files, own)
    folder, files = stage(run, 3, own)  # a zombie may write on as long as nobody sees it
    with pytest.raises(Fenced):
        commit.publish(run, folder, 2, 2, files, own)
    with pytest.raises(Fenced):
        commit.prune(run, 1, own)
    assert whole(run) == [2, 1] and (run.checkpoints / "latest").read_text() == "step-000002\n"


def test_an_attempt_that_is_taken_over_right_after_its_check_has_nothing_left_to_rename(run, monkeypatch):
    """A zombie that was suspended between the check and the rename."""
    own = begin(run, 0)
    save(run, 2, own)
    folder, files = stage(run, 3, own)
    check = own.check

    def passed_and_then_taken_over() -> None:
        check()
        begin(run, 1)

    monkeypatch.setattr(own, "check", passed_and_then_taken_over)
    with pytest.raises(FileNotFoundError):
        commit.publish(run, folder, 2, 2, files, own)
    assert whole(run) == [2] and leftovers(run) == []


def test_a_new_attempt_removes_what_others_left_half_done(run):
    save(run, 2, begin(run, 0))
    own = begin(run, 1)
    stage(run, 4, own)
    (run.checkpoints / f"{commit.REPLACED}step-000004").mkdir()
    begin(run, 2)
    assert whole(run) == [2] and leftovers(run) == []


def test_a_checkpoint_that_is_there_stays_and_one_without_a_marker_is_replaced(run):
    """The same step has the same bits; a marker that was taken back, or is damaged, vouches for nothing."""
    own = begin(run, 0)
    for step in (2, 4):
        save(run, step, own)
    save(run, 4, begin(run, 1))
    assert (whole(run), commit.published(run)[0][1].attempt) == ([4, 2], "44_0")
    assert (run.checkpoints / "latest").read_text() == "step-000004\n" and leftovers(run) == []
    damage(run.step_folder(4) / "common.pt")
    commit.distrust(run.step_folder(4))
    assert [complete.step for _, complete in commit.published(run)] == [2] == whole(run)
    save(run, 4, begin(run, 2))
    assert (whole(run), commit.published(run)[0][1].attempt) == ([4, 2], "44_2")
    damage(run.step_folder(4) / commit.COMPLETE)
    save(run, 4, begin(run, 3))
    assert (whole(run), commit.published(run)[0][1].attempt) == ([4, 2], "44_3")
    assert [name for name in leftovers(run) if name.startswith(commit.REPLACED)] == []


def test_a_pointer_that_an_attempt_could_not_move_any_more_is_moved_by_the_next(run):
    """It ended between the checkpoint and the pointer."""
    own = begin(run, 0)
    for step in (2, 4):
        save(run, step, own)
    (run.checkpoints / "latest").write_text("step-000002\n")
    save(run, 4, begin(run, 1))
    assert (run.checkpoints / "latest").read_text() == "step-000004\n"


def test_a_damaged_checkpoint_does_not_push_whole_ones_out(run):
    """It counts as one of those that are kept as long as its marker says so."""
    own = begin(run, 0)
    for step in (2, 4, 6):
        save(run, step, own, keep=3)
    damage(run.step_folder(6) / "common.pt")
    commit.distrust(run.step_folder(6))
    commit.distrust(run.step_folder(6))  # by every attempt that finds it
    save(run, 5, begin(run, 1), keep=3)
    assert whole(run) == [5, 4, 2] and not run.step_folder(6).exists()


def test_a_checkpoint_that_lost_its_marker_is_told_and_removed_after_the_next_save(run):
    own = begin(run, 0)
    for step in (2, 4):
        save(run, step, own)
    (run.step_folder(4) / commit.COMPLETE).unlink()
    assert commit.torn(run) == [run.step_folder(4)] and whole(run) == [2]
    save(run, 6, own)
    assert commit.torn(run) == [] and whole(run) == [6, 2]


def test_a_save_that_failed_gives_its_room_back_to_the_next(run):
    """On a disk that is nearly full the half of a checkpoint would keep every later one from being written."""
    own = begin(run, 0)
    stage(run, 2, own)
    stage(run, 4, own)
    staged = list(run.checkpoints.glob(f"{commit.STAGING}*/*"))
    assert [folder.name for folder in staged] == ["step-000004"]


NUM_FAULTS = 200


def faulty(folder: Path, choose: random.Random) -> str:
    """One single-bit flip, truncation or deletion somewhere in `folder`; says what."""
    file = choose.choice(sorted(folder.iterdir()))
    content = bytearray(file.read_bytes())
    kind = choose.choice(["flip", "flip", "truncate", "delete"])
    if kind == "delete":
        file.unlink()
    elif kind == "truncate":
        end = len(content) - (2 if file.name == commit.COMPLETE else 1)  # without its last line break it says the same
        content = content[: choose.randint(0, end)]
        file.write_bytes(content)
    else:
        content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
        file.write_bytes(content)
    return f"{kind} {file.name}"


def test_every_fault_of_any_file_is_found(run):
    own = begin(run, 0)
    for step in (2, 4):
        save(run, step, own)
    original = run.path / "original"
    shutil.copytree(run.step_folder(4), original)
    choose = random.Random(1)
    done = set()
    for _ in range(NUM_FAULTS):
        shutil.rmtree(run.step_folder(4))
        shutil.copytree(original, run.step_folder(4))
        fault = faulty(run.step_folder(4), choose)
        done.add(fault)
        name = fault.split()[1]
        if name == commit.COMPLETE:
            assert [complete.step for _, complete in commit.published(run)] == [2], fault
        else:
            folder, complete = commit.published(run)[0]
            assert commit.damaged(folder, complete, complete.files) == [name], fault
        assert whole(run) == [2], fault
    assert len(done) == 3 * 4


def test_every_byte_of_the_marker_counts(run):
    save(run, 2, begin(run, 0))
    marker = run.step_folder(2) / commit.COMPLETE
    content = marker.read_bytes()
    assert commit.read_marker(marker.parent)
    choose = random.Random(1)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << choose.randrange(8)
        marker.write_bytes(flipped)
        assert commit.read_marker(marker.parent) is None, f"{flipped[place - 9 : place + 9]!r}"


def test_a_file_of_another_checkpoint_is_not_taken_for_the_right_one(run):
    own = begin(run, 0)
    for step in (2, 4):
        save(run, step, own)
    shutil.copy(run.step_folder(2) / "common.pt", run.step_folder(4) / "common.pt")
    assert whole(run) == [2]
    shutil.copy(run.step_folder(2) / commit.COMPLETE, run.step_folder(4) / commit.COMPLETE)
    assert whole(run) == [2]


def test_before_the_first_save_there_is_nothing(run):
    assert commit.published(run) == [] and commit.torn(run) == []
    commit.clear_staging(run)
    assert commit.read_marker(run.step_folder(1)) is None
    assert commit.file_facts(run.path / "none") is None


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ENOTDIR, errno.EIO])
def test_a_file_that_is_missing_or_on_a_bad_block_is_damaged(run, monkeypatch, error):
    save(run, 2, begin(run, 0))
    refuse(monkeypatch, error)
    assert commit.file_facts(run.step_folder(2) / "common.pt") is None
    assert commit.read_marker(run.step_folder(2)) is None


@pytest.mark.parametrize("error", [errno.ESTALE, errno.ETIMEDOUT, errno.EACCES])
def test_a_filesystem_that_is_away_says_nothing_about_a_checkpoint(run, monkeypatch, error):
    """Or every checkpoint would be taken for damaged, and training begin anew."""
    save(run, 2, begin(run, 0))
    refuse(monkeypatch, error)
    for look in (lambda: commit.published(run), lambda: commit.file_facts(run.step_folder(2) / "common.pt")):
        with pytest.raises(OSError) as caught:
            look()
        assert caught.value.errno == error


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the system refuse to open any file of a checkpoint."""
    really = builtins.open

    def opened(file: Any, *arguments: Any, **more: Any) -> Any:
        if "/step-" in str(file):
            raise OSError(number, os.strerror(number))
        return really(file, *arguments, **more)

    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr("io.open", opened)
