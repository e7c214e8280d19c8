"""Guards what the monitor costs: one squeue for all runs and all monitors, sacct for what has vanished only,
and an old answer with its time when there is no new one. The programs here answer as the real ones do, and count.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from hpcsft.monitor.reading.snapshot import SharedQueue
from hpcsft.rundir import RunDir

QUEUE = (
    "7|N/A|RUNNING|1:02|1:00:00|2026-11-30T10:00:00|2026-11-30T11:00:00|n[1-2]|None\n"
    "8|3|PENDING|0:00|1:00:00|N/A|N/A||Priority\n"
)
ACCOUNTS = "5|TIMEOUT|01:00:05|01:00:00|2026-11-30T08:00:00|2026-11-30T09:00:05|n1\n"


class Programs:
    """An squeue and an sacct; `calls` are the command lines so far."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder = folder
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        self.answer("squeue", QUEUE)
        self.answer("sacct", ACCOUNTS)

    def answer(self, name: str, text: str, status: int = 0, error: str = "") -> None:
        (self.folder / f"{name}.txt").write_text(text)
        script = f'#!/bin/sh\necho "{name} $*" >> {self.folder}/calls\ncat {self.folder}/{name}.txt\n'
        (self.folder / name).write_text(script + f'echo "{error}" >&2\nexit {status}\n')
        (self.folder / name).chmod(0o755)

    def calls(self, name: str) -> list[str]:
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if line.startswith(f"{name} ")]


@pytest.fixture
def programs(tmp_path, monkeypatch):
    return Programs(tmp_path / "bin", monkeypatch)


@pytest.fixture
def runs(tmp_path) -> list[RunDir]:
    return [RunDir(tmp_path / "runs" / name) for name in ("a", "b", "c")]


def test_one_squeue_serves_all_runs(programs, runs):
    snapshot = SharedQueue(runs).look(15, set())
    assert len(programs.calls("squeue")) == 1 and programs.calls("sacct") == []
    assert [entry.job_id for entry in snapshot.entries(["7", "8", "9"])] == ["7", "8"]
    entry = snapshot.entries(["7"])[0]
    assert (entry.state, entry.elapsed_s, entry.limit_s, entry.nodes) == ("RUNNING", 62, 3600, "n[1-2]")
    assert snapshot.known and snapshot.problem is None and abs(snapshot.time - time.time()) < 60


def test_monitors_share_an_answer(programs, runs):
    SharedQueue(runs).look(15, set())
    other = SharedQueue(runs[1:2])
    assert [entry.job_id for entry in other.look(15, set()).entries(["8"])] == ["8"]
    assert len(programs.calls("squeue")) == 1
    other.look(0, set())
    assert len(programs.calls("squeue")) == 2, "an answer that is too old is none"


def test_another_slurm_on_the_same_filesystem_is_asked_for_itself(programs, runs, monkeypatch):
    SharedQueue(runs).look(15, set())
    monkeypatch.setenv("SLURM_CONF", "/etc/other/slurm.conf")
    SharedQueue(runs).look(15, set())
    assert len(programs.calls("squeue")) == 2


def test_sacct_is_asked_once_about_what_has_vanished(programs, runs):
    queue = SharedQueue(runs)
    snapshot = queue.look(15, {"5", "6", "7"})
    assert [call.split(" -j ")[1].split()[0] for call in programs.calls("sacct")] == ["5,6"]
    assert [(entry.state, entry.alive) for entry in snapshot.entries(["5"])] == [("TIMEOUT", False)]
    assert snapshot.entries(["6"]) == []
    queue.look(0, {"5", "6", "7"})
    SharedQueue(runs).look(0, {"5", "6", "7"})
    assert len(programs.calls("sacct")) == 1, "neither what it told nor what it does not know is asked for again"


def test_of_an_array_every_task_is_told(programs, runs):
    programs.answer(
        "sacct",
        "5_0|COMPLETED|00:01:00|01:00:00|2026-11-30T08:00:00|2026-11-30T08:01:00|n1\n"
        "5_1|PREEMPTED|00:01:00|01:00:00|2026-11-30T08:00:00|2026-11-30T08:01:00|n2\n"
        "5_1|CANCELLED by 1000|00:02:00|01:00:00|2026-11-30T08:10:00|2026-11-30T08:12:00|n2\n",
    )
    entries = SharedQueue(runs).look(15, {"5"}).entries(["5"])
    assert [(entry.index, entry.state) for entry in entries] == [(0, "COMPLETED"), (1, "CANCELLED")]


def test_without_accounts_nobody_asks_twice(programs, runs):
    programs.answer("sacct", "", 1, "Slurm accounting storage is disabled")
    queue = SharedQueue(runs)
    assert queue.look(15, {"5"}).problem is None
    queue.look(0, {"5"})
    SharedQueue(runs).look(0, {"4"})
    assert len(programs.calls("sacct")) == 1


def test_accounts_that_do_not_answer_are_asked_again(programs, runs):
    programs.answer("sacct", "", 1, "sacct: error: slurm_persist_conn_open: Connection refused")
    queue = SharedQueue(runs)
    queue.look(15, {"5"})
    programs.answer("sacct", ACCOUNTS)
    assert [entry.state for entry in queue.look(0, {"5"}).entries(["5"])] == ["TIMEOUT"]


def test_a_silence_keeps_the_last_answer_and_its_time(programs, runs):
    queue = SharedQueue(runs)
    answered = queue.look(15, set()).time
    programs.answer("squeue", "", 1, "slurm_load_jobs error: Unable to contact slurm controller")
    snapshot = queue.look(0, {"5"})
    assert snapshot.problem == "squeue failed: slurm_load_jobs error: Unable to contact slurm controller"
    assert snapshot.time == answered and snapshot.entries(["7"]) and programs.calls("sacct") == []
    assert SharedQueue(runs).look(15, set()).problem, "the silence is shared too: nobody knocks at once again"
    assert len(programs.calls("squeue")) == 2
    programs.answer("squeue", QUEUE)
    assert queue.look(0, set()).problem is None


def test_slurm_that_has_never_answered_is_not_known(programs, runs):
    programs.answer("squeue", "", 1, "no")
    snapshot = SharedQueue(runs).look(15, {"7"})
    assert not snapshot.known and snapshot.problem


def test_a_cache_that_cannot_be_written_or_read_is_done_without(programs, runs):
    runs[0].path.parent.mkdir()
    runs[0].cache.write_text("a file where a folder should be")
    assert SharedQueue(runs).look(15, set()).known
    assert SharedQueue(runs).look(15, set()).known
    assert len(programs.calls("squeue")) == 2


def test_a_damaged_cache_is_asked_anew(programs, runs):
    queue = SharedQueue(runs)
    queue.look(15, set())
    for text in ("", "{", "[]", json.dumps({"time": "soon"})):
        queue.files[0].write_text(text)
        assert SharedQueue(runs).look(15, set()).known
    assert len(programs.calls("squeue")) == 5


def test_the_cache_is_private(programs, runs):
    queue = SharedQueue(runs)
    queue.look(15, set())
    assert queue.files[0].stat().st_mode & 0o077 == 0 and queue.files[0].parent.stat().st_mode & 0o077 == 0


def test_what_counts_as_a_change(programs, runs):
    queue = SharedQueue(runs)
    first = queue.look(15, set())
    programs.answer("squeue", QUEUE.replace("1:02", "1:17"))
    second = queue.look(0, set())
    assert second.same_as(first, {"7", "8"}), "time passes, nothing else"
    programs.answer("squeue", QUEUE.replace("PENDING", "RUNNING"))
    third = queue.look(0, set())
    assert not third.same_as(second, {"7", "8"}) and third.same_as(second, {"7"}), "8 is none of ours"


def test_squeue_knows_better_than_what_sacct_once_said(programs, runs):
    """A job that was submitted after the last squeue is asked of sacct, which calls it PENDING."""
    programs.answer("sacct", "9|PENDING|00:00:00|01:00:00|Unknown|Unknown|None assigned\n")
    queue = SharedQueue(runs)
    assert queue.look(15, {"9"}).entries(["9"]) == [], "what has not ended has no past"
    programs.answer("squeue", QUEUE.replace("8|3", "9|N/A"))
    programs.answer("sacct", "9|FAILED|00:00:00|01:00:00|Unknown|Unknown|n1\n")
    assert [entry.state for entry in queue.look(0, {"9"}).entries(["9"])] == ["PENDING"]
    programs.answer("squeue", QUEUE)
    assert [entry.state for entry in queue.look(0, {"9"}).entries(["9"])] == ["FAILED"]
    programs.answer("squeue", QUEUE.replace("8|3", "9|N/A"))  # job ids come round
    assert [entry.state for entry in queue.look(0, {"9"}).entries(["9"])] == ["PENDING"]


def test_an_sacct_that_prints_something_else_is_asked_again(programs, runs):
    programs.answer("sacct", "welcome\n")
    queue = SharedQueue(runs)
    assert queue.look(15, {"5"}).entries(["5"]) == []
    programs.answer("sacct", ACCOUNTS)
    assert [entry.state for entry in queue.look(0, {"5"}).entries(["5"])] == ["TIMEOUT"]


def test_what_users_have_set_for_their_own_squeue_does_not_change_ours(programs, runs, monkeypatch):
    monkeypatch.setenv("SQUEUE_PARTITION", "gpu")
    monkeypatch.setenv("SACCT_FORMAT", "JobID")
    programs.answer("squeue", "CLUSTER: one\n" + QUEUE)
    script = (programs.folder / "squeue").read_text()
    (programs.folder / "squeue").write_text(
        script.replace("#!/bin/sh\n", '#!/bin/sh\n[ -z "$SQUEUE_PARTITION" ] || exit 1\n')
    )
    assert SharedQueue(runs).look(15, set()).entries(["7"])


def test_an_squeue_that_prints_something_else_is_a_problem_and_no_crash(programs, runs):
    queue = SharedQueue(runs)
    queue.look(15, set())
    programs.answer("squeue", "welcome to the cluster!\n")
    snapshot = queue.look(0, set())
    assert snapshot.problem == "squeue prints what is not understood" and snapshot.entries(["7"])
