"""One command at a time submits a run: who is at it, who has died at it, and whose clocks differ."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcsft.cluster import lock, submit
from hpcsft.cluster.lock import STALE_S, SubmissionLock
from hpcsft.errors import HpcsftError, SubmissionError
from hpcsft.records import write_json
from hpcsft.rundir import RunDir
from tests.waiting import wait_for


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "runs" / "tiny-01234567")


def leave(run: RunDir, age_s: float = 0.0, **changed: object) -> SubmissionLock:
    """A lock file as another process has left it, `age_s` ago by the clock that stamps files."""
    lock = SubmissionLock(run)
    lock.file.parent.mkdir(parents=True, exist_ok=True)
    write_json(lock.file, lock.holder.model_copy(update=changed))
    moment = time.time() - age_s
    os.utime(lock.file, (moment, moment))
    return lock


def test_it_is_gone_afterwards_and_can_be_had_again(run):
    for _ in range(2):
        with SubmissionLock(run) as lock:
            lock.renew()
            assert lock.file.exists()
        assert not run.path.parent.exists(), "nor is the folder that it was made in"


def test_the_second_is_told_who_is_at_it(run):
    message = rf"another command is submitting {run.path} \(on \S+, process {os.getpid()}, since \d\d:\d\d:\d\d\)"
    with SubmissionLock(run), pytest.raises(SubmissionError, match=message) as error, SubmissionLock(run):
        pass
    assert f"remove {run.path.parent}/.tiny-01234567.lock" in error.value.hint


def test_a_process_of_this_host_that_has_ended_holds_nothing(run):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    leave(run, pid=child.pid, began="12345")
    with SubmissionLock(run):
        pass
    leave(run, began="1")  # this very pid, given away again
    with SubmissionLock(run):
        pass


@pytest.mark.parametrize("its_clock", ["2001-01-01T00:00:00.000+00:00", "2101-01-01T00:00:00.000+00:00"])
def test_one_of_another_host_counts_by_its_age_and_not_by_that_hosts_clock(run, its_clock):
    leave(run, age_s=STALE_S - 60, host="login2", pid=1, time=its_clock)
    with pytest.raises(SubmissionError, match="on login2, process 1"), SubmissionLock(run):
        pass
    leave(run, age_s=STALE_S + 60, host="login2", pid=1, time=its_clock)
    with SubmissionLock(run):
        pass
    assert not list(run.path.parent.iterdir())


def test_whose_lock_was_taken_away_submits_nothing_more_and_leaves_the_others_alone(run):
    with SubmissionLock(run) as first:
        first.file.unlink()
        other = leave(run, host="login2")
        with pytest.raises(SubmissionError, match="another command has taken over"):
            first.renew()
    assert other.file.exists()


def test_a_holder_that_works_for_long_is_not_taken_for_dead(run, monkeypatch):
    """It may fetch a model for hours before it submits the first job."""
    monkeypatch.setattr(lock, "TOUCH_S", 0.05)
    with SubmissionLock(run) as held:
        os.utime(held.file, (0, 0))
        wait_for("a lock that is touched", lambda: time.time() - held.file.stat().st_mtime < STALE_S, 10)
    assert not held.file.exists()


def test_whose_lock_was_taken_away_does_not_remove_the_run_that_another_prepares(run, monkeypatch):
    def taken_away(spec: object, plan: object, run: RunDir, argv: object) -> None:
        run.path.mkdir()
        leave(run, host="login2")
        raise HpcsftError("it took long")

    monkeypatch.setattr(submit, "prepare_run", taken_away)
    monkeypatch.setattr(submit, "check_order", lambda *_: None)
    with pytest.raises(HpcsftError, match="it took long"), SubmissionLock(run) as held:
        submit._submit(None, None, run, ["train"], [], held)
    assert run.path.exists()


def test_a_file_that_is_empty_or_torn_is_somebodys_until_it_is_old(run):
    lock = leave(run)
    lock.file.write_text('{"host": ')
    with pytest.raises(SubmissionError, match=r"another command is submitting .* \(of \w+, since"), SubmissionLock(run):
        pass
    os.utime(lock.file, (0, 0))
    with SubmissionLock(run):
        pass
