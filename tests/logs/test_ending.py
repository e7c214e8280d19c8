"""A task is over when it says so, or else its driver or Slurm; and nothing else makes it so."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from hpcsft.logs import ending as module
from hpcsft.logs.ending import Ending, state_in_slurm
from hpcsft.monitor.reading.snapshot import NOTHING, Answer, Snapshot
from hpcsft.records import BY_HAND, StageStatus, Submission, SubmittedStage, now, write_json
from hpcsft.rundir import RunDir
from tests.cluster.minislurm import MiniSlurm
from tests.logs.following import Following
from tests.logs.made import log, say, submit
from tests.runs import finished_run

QUIET_S = 31.0
SUBMITTED_S, SAID_S, ENDED_S, LATE_S = 1_000_000, 1_001_000, 1_002_000, 1_002_061


def moment(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, timezone.utc).isoformat(timespec="milliseconds")


def answer(*lines: tuple[str, int, str], time_s: float = LATE_S, problem: str | None = None) -> Snapshot:
    """Slurm's answer of job, task and state; what has ended has done so at ENDED_S."""
    end = datetime.fromtimestamp(ENDED_S).isoformat()  # as Slurm writes it
    queue = "".join(f"{job}|{index}|{state}|1:00|2:00|N/A|{end}|n1|None\n" for job, index, state in lines)
    return Snapshot(Answer(time=time_s, asked=time_s, queue=queue, problem=problem))


def state(snapshot: Snapshot, **facts: Any) -> str | None:
    """Of task 1 of an array, which was submitted as job 12 and last spoke at SAID_S."""
    job = SubmittedStage(stage="train", job_id="12", depends_on=[], tasks=3, submitted=moment(SUBMITTED_S))
    said = {"job_id": "12_1", "state": "running", "updated": moment(SAID_S), **facts}
    status = StageStatus(stage="train", index=1, attempt=1, **said)
    return state_in_slurm(snapshot, Submission(cluster="slurm", host="login", jobs=[job]), status, "train", 1)


@pytest.mark.parametrize("held", ["PENDING", "RUNNING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED"])
def test_what_slurm_holds_goes_on(held):
    assert state(answer(("12", 1, held))) is None


@pytest.mark.parametrize(
    ("ended", "expected"),
    [("CANCELLED", "cancelled"), ("NODE_FAIL", "failed"), ("TIMEOUT", "failed"), ("COMPLETED", "failed")],
)
def test_what_slurm_has_ended_is_over(ended, expected):
    others = [("12", 0, "RUNNING"), ("12", 2, "CANCELLED"), ("13", 1, "RUNNING")]
    assert state(answer(*others, ("12", 1, ended))) == expected
    assert state(answer(*others, ("12", 1, ended), time_s=ENDED_S + 59)) is None, "it may be about to say why"


def test_what_slurm_has_forgotten_has_failed():
    assert state(answer(("12", 0, "RUNNING"))) == "failed"
    assert state(answer()) == "failed"


def test_an_answer_from_before_the_last_word_says_nothing():
    assert state(answer(time_s=SAID_S + 59)) is None
    assert state(answer(time_s=SUBMITTED_S + 59), job_id="11", updated="") is None
    assert state(answer(time_s=SUBMITTED_S + 61), job_id="11", updated="") == "failed"


def test_a_slurm_that_does_not_answer_ends_nothing():
    assert state(answer(problem="squeue failed")) is None
    assert state(NOTHING) is None


def test_what_a_person_has_started_is_no_job_of_slurm():
    by_hand = {"job_id": f"{BY_HAND}7", "started": moment(SUBMITTED_S + 1)}
    assert state(answer(), **by_hand) is None
    assert state(answer(), **{**by_hand, "started": moment(SUBMITTED_S - 1)}) == "failed", "submitted since"


@pytest.fixture
def run(spec_values: dict[str, Any]) -> RunDir:
    """A run whose training is under way in Slurm, as far as it has said itself."""
    run = finished_run(spec_values)
    submit(run, submitted=moment(time.time() - 3600))
    log(run, "train/12_0", out="step 1\n")
    say(run, "train/12_0", "running", updated=moment(time.time() - 1800))
    return run


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An squeue whose script a test may write; it knows of no job."""
    script = tmp_path / "bin" / "squeue"
    script.parent.mkdir()
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    script.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/calls\n")
    script.chmod(0o755)
    return script


def num_asked(squeue: Path) -> int:
    calls = squeue.parent.parent / "calls"
    return len(calls.read_text().splitlines()) if calls.exists() else 0


def test_slurm_is_asked_only_about_what_is_quiet_and_no_more_than_needed(run, squeue, monkeypatch):
    squeue.write_text(squeue.read_text() + "echo '12|N/A|RUNNING|1:00|2:00|N/A|N/A|n1|None'\n")
    ending = Ending(run, "train", 0)
    for quiet_s in (0.0, 10.0, 29.9):
        assert ending.look(quiet_s) == (None, False)
    assert num_asked(squeue) == 0
    with monkeypatch.context() as patch:
        patch.setattr(module, "ANSWER_MAX_AGE_S", 0.0)
        for _ in range(3):
            assert ending.look(QUIET_S) == (None, False)
    assert Ending(run, "train", 0).look(QUIET_S) == (None, False), "another on this host has the same answer"
    assert num_asked(squeue) == 1


def test_a_job_that_is_gone_ends_it(run, squeue):
    assert Ending(run, "train", 0).look(QUIET_S) == ("failed", False)


def test_what_a_task_says_while_slurm_is_asked_counts(run, squeue):
    status = run.read_status("train", 0, 1)
    write_json(run.path / "done", status.model_copy(update={"state": "done"}))
    squeue.write_text(squeue.read_text() + f"cp {run.path}/done {run.status}/train.json\n")
    assert Ending(run, "train", 0).look(QUIET_S) == ("done", True)


def test_a_driver_that_ends_well_in_this_moment_has_not_failed(run, monkeypatch):
    submit(run, cluster="local", train="local-7", report="local-7")
    say(run, "train/local-7_0", "running")

    def ends_now(*_: object) -> bool:
        say(run, "train/local-7_0", "done")
        return False

    monkeypatch.setattr("hpcsft.cluster.local.driver_alive", ends_now)
    assert Ending(run, "train", 0).look(0) == ("done", True)


def test_a_run_outside_slurm_asks_nothing(run, squeue, monkeypatch):
    submit(run, cluster="local")
    monkeypatch.setattr("hpcsft.cluster.local.driver_alive", lambda *_: True)
    assert Ending(run, "train", 0).look(QUIET_S) == (None, False)
    run.submission.unlink()  # every stage by hand
    assert Ending(run, "train", 0).look(QUIET_S) == (None, False)
    assert num_asked(squeue) == 0


def test_the_plan_is_read_once(run):
    ending = Ending(run, "train", 0)
    run.plan.unlink()
    assert ending.look(0) == (None, False)


@pytest.mark.slurm
def test_following_ends_with_a_job_that_was_cancelled_or_has_lost_its_node(
    run: RunDir, slurm: MiniSlurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("SLURM_AFTER_S", "ANSWER_MAX_AGE_S", "LAST_WORD_S"):
        monkeypatch.setattr(module, name, 0.1)
    monkeypatch.setattr("hpcsft.logs.show.QUIET_S", 0.2)
    jobs = [slurm.submit("sleep 600", "--partition=low", "--no-requeue", f"--nodelist=n{n}") for n in (1, 2)]
    for job_id in jobs:
        slurm.wait_job(job_id, "RUNNING")
    slurm.run("scancel", jobs[0])
    slurm.run("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    slurm.run("scontrol", "update", "NodeName=n2", "State=RESUME", check=False)  # it may have come back by itself
    slurm.wait_job(jobs[1], "NODE_FAIL")
    for began_s, job_id, expected in zip((2, 3), jobs, ("cancelled", "failed"), strict=True):
        submit(run, train=job_id, submitted=now())
        log(run, f"train/{job_id}_0", out=f"of {job_id}\n", began_s=began_s)
        say(run, f"train/{job_id}_0", "running", updated=now())
        following = Following(run, tmp_path, monkeypatch)
        assert following.end() == expected and following.out == f"of {job_id}\n".encode()
    slurm.wait_idle()
