"""Guards the record of an attempt: nodes and Slurm's own facts where there are any, and never a failure or a wait."""

from __future__ import annotations

import time

import pytest

from hpcsft.attempt.identity import TaskIdentity
from hpcsft.provenance import attempt
from hpcsft.provenance.attempt import ENDED_FIELDS, JOB_FIELDS, attempt_facts, parse_jobs, record_attempt
from hpcsft.provenance.ended import ACCOUNTED, parse_accounts, record_ended
from hpcsft.records import Submission, SubmittedStage, read_json
from tests import waiting
from tests.attempt.made import empty_run

TASK = TaskIdentity(job_id="12_3", restart=1, rank=0, local_rank=0, world_size=8)
LINE = (
    "JobId=13 ArrayJobId=12 ArrayTaskId=3 JobName=tiny.train UserId=me(1000) GroupId=me(1000) MCS_label=N/A "
    "Priority=4294901758 Nice=0 Account=(null) QOS=normal JobState=COMPLETED Reason=None Dependency=(null) Requeue=1 "
    "Restarts=1 BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:05 TimeLimit=00:10:00 TimeMin=N/A "
    "SubmitTime=2026-11-30T10:00:00 EligibleTime=2026-11-30T10:00:01 StartTime=2026-11-30T10:00:02 "
    "EndTime=2026-11-30T10:00:07 Partition=low NodeList=n[1-2] NumNodes=2 NumCPUs=2 NumTasks=2 "
    "ReqB:S:C:T=0:0:*:* TRES=cpu=2,mem=32000M,node=2,billing=2 Command=(null) WorkDir=/runs/a/code\n"
)


def test_what_is_kept_of_a_job():
    [kept] = parse_jobs(LINE, JOB_FIELDS)
    assert kept["TRES"] == "cpu=2,mem=32000M,node=2,billing=2" and kept["QOS"] == "normal"
    assert kept["SubmitTime"] == "2026-11-30T10:00:00" and kept["Restarts"] == "1"
    assert not {"Account", "JobState", "WorkDir"} & set(kept), "nothing said, not known yet, not Slurm's"
    assert [row["ExitCode"] for row in parse_jobs(LINE * 2, ENDED_FIELDS)] == ["0:0"] * 2
    assert parse_jobs("", JOB_FIELDS) == []


def test_what_is_kept_of_the_accounts():
    line = "12_0|a.train|COMPLETED|0:0|low||normal|S|E|B|F|00:01:00|n1|cpu=1|60|"
    assert line.count("|") == len(ACCOUNTED) - 1
    [row] = parse_accounts(f"{line}\nwelcome\n")
    assert (row["JobID"], row["State"], row["CPUTimeRAW"]) == ("12_0", "COMPLETED", "60")
    assert "Account" not in row and "ConsumedEnergyRaw" not in row


def test_outside_slurm_the_host_is_the_node(tmp_path):
    run = empty_run(tmp_path)
    task = TaskIdentity(job_id="local-5", restart=0, rank=0, local_rank=0, world_size=2)
    record_attempt(run, "train", 0, task)
    found = read_json(run.provenance_folder / "train" / "local-5_0.json")
    assert found["nodes"] == [found["host"]] and found["slurm"] is None and found["world_size"] == 2
    assert run.provenance_folder.stat().st_mode & 0o077 == 0


def test_a_slurm_that_does_not_answer_costs_facts_only(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    found = attempt_facts("train", 3, TASK)
    assert found["nodes"] == ["n[1-2]"] and found["slurm"] is None and found["packages"]["torch"]


def test_a_slurm_that_is_slow_is_not_waited_for(tmp_path, monkeypatch):
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "scontrol").write_text("#!/bin/sh\nwhile [ ! -e released ]; do /bin/sleep 0.05; done\n")
    (slow / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(slow))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(attempt, "PATIENCE_S", 0.2)
    run = empty_run(tmp_path / "run")
    began = time.monotonic()
    record_attempt(run, "train", 3, TASK)
    assert time.monotonic() - began < 5
    (tmp_path / "released").touch()
    waiting.wait_for("the late record", lambda: (run.provenance_folder / "train" / "12_3_1.json").exists(), 30)


def test_a_record_that_cannot_be_written_is_done_without(tmp_path):
    run = empty_run(tmp_path)
    run.provenance_folder.rmdir()
    run.provenance_folder.write_text("a file where a folder should be")
    record_attempt(run, "train", 3, TASK)
    record_ended(run)


@pytest.mark.slurm
def test_the_end_of_jobs_as_the_real_slurm_tells_it(slurm, tmp_path):
    """The cluster here keeps no accounts."""
    run = empty_run(tmp_path)
    job_id = slurm.submit("true", "--array=0-1")
    jobs = [SubmittedStage(stage="train", job_id=job_id, depends_on=[], tasks=2, submitted="")]
    run.write_submission(Submission(cluster="slurm", host="here", jobs=jobs))

    def ended() -> bool:
        record_ended(run)
        rows = read_json(run.ended_jobs)["jobs"]
        return [row.get("JobState") for row in rows] == ["COMPLETED"] * 2

    waiting.wait_for("the end of both tasks", ended, 60)
    document = read_json(run.ended_jobs)
    assert document["source"] == "scontrol"
    assert {row["ArrayJobId"] for row in document["jobs"]} == {job_id}
    assert all(row["ExitCode"] == "0:0" and row["NodeList"] for row in document["jobs"])
