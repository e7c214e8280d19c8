"""What Slurm's clients say, taken as it was meant; and who does not answer is told as that."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from hpcsft.errors import ClusterError
from hpcsft.slurm_client import (
    cancel_jobs,
    duration_s,
    duration_text,
    parse_job,
    past_states,
    query_job,
    requeue_job,
    run_client,
)
from hpcsft.slurm_queue import query_queue

RUNNING = (
    "JobId=44 JobName=tiny.train UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=1 Nice=0 Account=(null) QOS=low "
    "JobState=RUNNING Reason=None Dependency=(null) Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=0:0 "
    "RunTime=00:59:58 TimeLimit=01:00:00 TimeMin=N/A SubmitTime=2026-11-22T10:00:00 EligibleTime=2026-11-22T10:00:00 "
    "StartTime=2026-11-22T10:00:01 EndTime=2026-11-22T11:00:01 Deadline=N/A PreemptEligibleTime=2026-11-22T10:00:01 "
    "PreemptTime=None SuspendTime=None SecsPreSuspend=0 Comment=hpcsft:tiny-0123abcd:train WorkDir=/runs/a b/code"
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-02:03:04", 93_784), ("02:03:04", 7_384), ("1:02", 62), ("0:00", 0), ("UNLIMITED", None), ("INVALID", None)],
)
def test_durations_as_slurm_writes_them(text, seconds):
    assert duration_s(text) == seconds
    if seconds is not None:
        assert duration_s(duration_text(seconds)) == seconds


def test_a_running_job():
    facts = parse_job(RUNNING)
    assert (facts.state, facts.running, facts.preempted, facts.used_up) == ("RUNNING", True, False, False)
    assert (facts.end_time, facts.restarts) == (datetime(2026, 11, 22, 11, 0, 1), 2)
    assert parse_job("JobId=44 JobState=RUNNING").restarts == 0


def test_where_a_job_may_run():
    line = f"{RUNNING} Partition=low,high ReqNodeList=(null) ExcNodeList=n[4-5],n7 NumNodes=2-2 NumCPUs=8"
    facts = parse_job(line)
    assert (facts.partition, facts.num_nodes, facts.excluded) == ("low,high", 2, "n[4-5],n7")
    assert parse_job(line.replace("n[4-5],n7", "(null)")).excluded == ""


@pytest.mark.parametrize(
    ("run_time", "limit", "used_up"),
    [
        ("00:59:58", "01:00:00", False),
        ("00:59:59", "01:00:00", True),
        ("01:00:31", "01:00:00", True),
        ("1-23:59:59", "2-00:00:00", True),
        ("23:59:59", "2-00:00:00", False),
        ("9-00:00:00", "UNLIMITED", False),
        ("00:00:00", "Partition_Limit", False),
    ],
)
def test_a_job_has_used_its_time_up_or_not(run_time, limit, used_up):
    line = RUNNING.replace("RunTime=00:59:58 TimeLimit=01:00:00", f"RunTime={run_time} TimeLimit={limit}")
    assert parse_job(line).used_up is used_up


def test_a_job_that_was_told_to_leave():
    line = RUNNING.replace("PreemptTime=None", "PreemptTime=2026-11-22T10:30:00")
    assert parse_job(line).preempted
    assert not parse_job(line.replace("JobState=RUNNING", "JobState=COMPLETING")).running


def test_the_time_that_is_left():
    end = (datetime.now() + timedelta(seconds=100)).isoformat(timespec="seconds")
    assert 98 < parse_job(RUNNING.replace("2026-11-22T11:00:01", end)).remaining_s() <= 100
    assert parse_job(RUNNING.replace("EndTime=2026-11-22T11:00:01", "EndTime=Unknown")).remaining_s() is None


def test_what_a_client_says_and_what_is_no_answer():
    assert run_client("sh", "-c", "echo $SLURM_TIME_FORMAT") == "standard\n"
    with pytest.raises(ClusterError, match=r"sh failed: the second line") as caught:
        run_client("sh", "-c", "echo the first >&2; echo the second line >&2; exit 1")
    assert caught.value.hint == "try again when Slurm answers"
    with pytest.raises(ClusterError, match="sh failed: exit status 3"):
        run_client("sh", "-c", "exit 3")
    assert run_client("sh", "-c", "echo so far; echo slurm_load_jobs error: Invalid job id >&2; exit 1",
                      ignore=("Invalid job id",)) == "so far\n"  # fmt: skip


def test_where_there_is_no_slurm_nobody_answers(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    asking = {
        "squeue": query_queue,
        "scontrol": lambda: query_job("44"),
        "scancel": lambda: cancel_jobs(["44"]),
    }
    for client, ask in asking.items():
        with pytest.raises(ClusterError, match=f"{client} does not answer"):
            ask()
    with pytest.raises(ClusterError, match="scontrol does not answer"):
        requeue_job("44")
    assert past_states("44") == [], "accounts are kept on some clusters only"
    cancel_jobs([])


def test_the_clients_ask_the_cluster_that_sbatch_submits_to(monkeypatch):
    """A job's environment has no SLURM_CLUSTERS; with it scontrol would tell of another cluster than theirs."""
    monkeypatch.setenv("SLURM_CLUSTERS", "elsewhere")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    assert run_client("sh", "-c", 'echo "$SLURM_CLUSTERS|$SLURM_CONF"') == "|/etc/slurm.conf\n"
