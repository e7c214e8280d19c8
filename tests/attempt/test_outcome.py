"""Guards what becomes of a run whose attempt has ended: the right cause from what is left of it, the rank's own words
in the status, and no way back into the queue for what was cancelled, taken over or wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from hpcsft.attempt import outcome as module
from hpcsft.attempt.identity import TaskIdentity
from hpcsft.attempt.outcome import Outcome, cause_of_notice, main, requeue, settle_earlier
from hpcsft.plan import Plan
from hpcsft.records import Progress, StageStatus, read_json, write_json
from hpcsft.rundir import RunDir
from tests.attempt.made import empty_run, end_of, events, fence, journal, submitted, token
from tests.launch.command import ROOT, environment

NO_SLURM = "/nowhere"
"""A PATH without Slurm's clients: nobody answers."""


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch) -> None:
    monkeypatch.setenv("PATH", NO_SLURM)


@pytest.fixture
def run(tmp_path) -> RunDir:
    return empty_run(tmp_path)


def outcome(run: RunDir, job_id: str = "44", restart: int = 0, stage: str = "train") -> Outcome:
    return Outcome(run, Plan.model_validate(read_json(run.plan)).stage(stage), 0, token(job_id, restart))


def say(run: RunDir, state: str, job_id: str = "44", restart: int = 0, **more: Any) -> None:
    """What the task's status says."""
    status = StageStatus(stage="train", index=0, state=state, attempt=1, job_id=job_id, restart=restart, **more)
    write_json(run.status_file("train", 0, 1), status)


START = ("start", {"attempt": 1})
TERM = ("notice", {"signal": "SIGTERM"})
USR2 = ("notice", {"signal": "SIGUSR2"})
LOST = ("failed", {"cause": "rank_failure", "message": "connection closed by peer"})
BROKEN = ("failed", {"cause": "code", "message": "the loss is NaN", "hint": "try a lower one"})
FULL = ("failed", {"cause": "disk_full", "message": "No space left on device"})
MEMORY = ("failed", {"cause": "out_of_memory", "message": "CUDA out of memory"})
STOPPED = ("stopped", {"cause": "timeout", "step": 3})

ENDS = {
    "died before it could say anything": ([], 1, "code"),
    "ended before it could say anything": ([], 0, "rank_failure"),
    "killed before it could say anything": ([], 137, "rank_failure"),
    "left by sys.exit": ([START], 1, "code"),
    "killed": ([START], 137, "rank_failure"),
    "ended without a word": ([START], 0, "rank_failure"),
    "stopped, and said why": ([START, TERM, STOPPED], 0, "timeout"),
    "told to leave, killed before it had": ([START, TERM], 143, "preemption"),
    "told of the time limit, killed before it had": ([START, USR2], 143, "timeout"),
    "a rank died of the signal while the others stopped": ([START, TERM, LOST], 1, "preemption"),
    "a rank lost another": ([START, LOST], 1, "rank_failure"),
    "code": ([START, BROKEN], 1, "code"),
    "code, after a signal": ([START, TERM, BROKEN], 1, "code"),
    "full disk": ([START, FULL], 1, "disk_full"),
    "GPU memory": ([START, MEMORY], 1, "out_of_memory"),
    "looked back at: nothing said": ([START], None, "node_failure"),
    "looked back at: told to leave": ([START, TERM], None, "preemption"),
    "looked back at: a rank lost another": ([START, LOST], None, "rank_failure"),
    "looked back at: code": ([START, BROKEN], None, "code"),
    "looked back at: stopped": ([START, USR2, STOPPED], None, "timeout"),
}


@pytest.mark.parametrize(("rows", "status", "cause"), ENDS.values(), ids=ENDS)
def test_the_cause_of_an_end(run, rows, status, cause):
    for restart in (3, 1):  # what other attempts said is not this one's
        journal(run, restart=restart).write(*([START, BROKEN][restart % 2][:1]), cause="code", message="another")
    for event, facts in rows:
        journal(run, restart=2).write(event, **facts)
    outcome(run, restart=2).settle(status)
    assert (end_of(run)["cause"], end_of(run)["restart"], end_of(run).get("status")) == (cause, 2, status)


@pytest.mark.parametrize(("signal_name", "cause"), [("SIGTERM", "signal"), ("time limit", "timeout")])
def test_without_slurm_nobody_preempts(signal_name, cause):
    assert cause_of_notice(token("local-9"), signal_name) == cause


def hang(run: RunDir, restart: int = 0) -> None:
    file = run.hang_file("train", "44", restart, 1)
    file.parent.mkdir(parents=True)
    file.write_text("{}")


@pytest.mark.parametrize("rows", [[START], [START, TERM], [START, LOST], [START, BROKEN]])
def test_an_attempt_that_the_watchdog_ended_has_hung_whatever_the_others_said(run, rows):
    for event, facts in rows:
        journal(run).write(event, **facts)
    hang(run)
    assert outcome(run).settle(137).requeue
    assert end_of(run)["cause"] == "hang"
    journal(run, restart=1).write("start")
    outcome(run, restart=1).settle(137)
    assert end_of(run)["cause"] == "rank_failure", "it was the attempt before that hung"


@pytest.mark.parametrize("name", ["44_0_log.err", "44_1_log.err"])
def test_slurms_word_about_memory_is_found_in_any_launcher_log(run, name):
    (run.submitit / "train").mkdir()
    (run.submitit / "train" / "44_2_log.err").write_text("nothing\n" * 5000)
    (run.submitit / "train" / name).write_text("x" * 20000 + "\nslurmstepd: error: Detected 1 oom_kill event in ...\n")
    (run.submitit / "train" / "43_0_log.err").write_text("")
    for event, facts in (START, LOST):
        journal(run).write(event, **facts)
    verdict = outcome(run).settle(1)
    assert end_of(run)["cause"] == "out_of_memory" and not verdict.requeue
    assert verdict.message.startswith("ran out of memory: connection closed by peer (1 time; cluster.retries.out_of")


def test_memory_of_another_job_is_not_this_ones(run):
    (run.submitit / "train").mkdir()
    (run.submitit / "train" / "43_0_log.err").write_text("oom-kill")
    journal(run).write("start")
    outcome(run).settle(137)
    assert end_of(run)["cause"] == "rank_failure"


def test_what_training_has_committed_is_its_newest_checkpoint(run):
    for restart, step in ((0, 5), (1, 9), (2, 3)):
        journal(run, restart=restart).write("saved", step=step)
    say(run, "running", progress=Progress(done=12, total=20, unit="steps"))
    assert outcome(run).committed() == 9
    assert outcome(empty_run(run.path.parent / "other")).committed() == 0


def test_what_other_stages_have_committed_is_their_progress(run):
    file = run.status_file("judge", 0, 1)
    progress = Progress(done=12, total=20, unit="verdicts")
    write_json(file, StageStatus(stage="judge", index=0, state="running", attempt=1, job_id="44", progress=progress))
    assert outcome(run, stage="judge").committed() == 12


def test_the_verdict_in_the_status_keeps_what_was_known(run):
    progress = Progress(done=12, total=20, unit="steps")
    say(run, "running", restart=0, log="logs/train/44_0/0.err", progress=progress, started="before")
    journal(run).write("start")
    tried_again = outcome(run)
    tried_again.record(tried_again.settle(137))
    status = run.read_status("train", 0, 1)
    assert (status.state, status.message, status.hint) == ("stopped", "a rank died", None)
    assert (status.log, status.progress, status.started) == ("logs/train/44_0/0.err", progress, "before")
    journal(run, restart=1).write(*BROKEN[:1], **BROKEN[1])
    over = outcome(run, restart=1)
    over.record(over.settle(1))
    status = run.read_status("train", 0, 1)
    assert (status.state, status.restart) == ("failed", 1)
    assert (status.message, status.hint) == ("the loss is NaN", "try a lower one")


def test_a_verdict_about_a_task_that_never_spoke(run):
    silent = outcome(run)
    silent.record(silent.settle(2))
    status = run.read_status("train", 0, 1)
    assert (status.state, status.job_id) == ("failed", "44")
    assert status.message == "the job ended with exit status 2 before it could say anything"


def task(restart: int, job_id: str = "44") -> TaskIdentity:
    return TaskIdentity(job_id, restart, 0, 0, 1)


def test_looking_back_judges_once_and_only_this_job(run):
    plan = Plan.model_validate(read_json(run.plan))

    def look_back(restart: int, job_id: str = "44"):
        return settle_earlier(run, plan.stage("train"), 0, task(restart, job_id))

    assert look_back(0) is None
    journal(run).write("start")
    assert look_back(0) is None, "its own rows"
    assert look_back(0, "50") is None, "another job"
    assert look_back(2).requeue  # restart 1 died before it could write
    assert (end_of(run)["cause"], end_of(run)["restart"]) == ("node_failure", 0)
    assert look_back(2) is None, "it has been judged"
    journal(run, restart=2).write("done")
    assert look_back(3) is None


def test_looking_back_ends_what_is_beyond_its_budget(tmp_path):
    run = empty_run(tmp_path, node_failure=1, no_progress=0)
    stage = Plan.model_validate(read_json(run.plan)).stage("train")
    for restart, goes_on in ((1, True), (2, False)):
        journal(run, restart=restart - 1).write("start")
        assert settle_earlier(run, stage, 0, task(restart)).requeue is goes_on


def script(run: RunDir, status: int, stage: str = "train", **env: str) -> subprocess.CompletedProcess[str]:
    """The end of the batch script, as Slurm runs it, on a node where Slurm does not answer."""
    command = [sys.executable, "-m", "hpcsft.attempt.outcome", str(run.path), stage, str(status)]
    job = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "44", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
           "SLURM_NTASKS": "2", "PATH": NO_SLURM}  # fmt: skip
    return subprocess.run(
        command, cwd=ROOT, env={**environment(), **job, **env}, capture_output=True, text=True, timeout=60
    )


def test_the_script_of_a_job_that_is_done_ends_well_whatever_srun_said(run):
    """A rank may die in the interpreter's own end, after everything was written."""
    journal(run).write("done")
    say(run, "done")
    done = script(run, 134)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert events(run) == ["done"]


def test_the_script_tells_the_ranks_own_words_and_never_requeues_a_code_error(run):
    journal(run).write(*BROKEN[:1], **BROKEN[1])
    say(run, "failed", message="the loss is NaN")
    done = script(run, 1)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    status = run.read_status("train", 0, 1)
    assert (status.state, status.message, status.hint) == ("failed", "the loss is NaN", "try a lower one")
    assert (end_of(run)["cause"], end_of(run)["status"]) == ("code", 1)


@pytest.mark.parametrize("rows", [[START], [START, TERM], [START, BROKEN]])
def test_the_script_of_a_cancelled_run_leaves_it_cancelled(run, rows):
    run.cancelled.touch()
    say(run, "running")
    for event, facts in rows:
        journal(run).write(event, **facts)
    done = script(run, 143)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert end_of(run)["cause"] == "cancelled"
    assert run.read_status("train", 0, 1).state == "running", "what the monitor shows is CANCELLED"


@pytest.mark.parametrize("newer", [("44", "1"), ("50", "0")])
def test_the_script_of_an_attempt_that_was_taken_over_decides_nothing(run, newer):
    journal(run).write("start")
    job_id, restart = newer
    submitted(run, ("train", "44"), ("train", job_id))
    fence(run, job_id, int(restart)).claim()
    say(run, "running", job_id, int(restart))
    done = script(run, 1)
    assert done.returncode == 76 and "not the newest any more" in done.stdout
    assert events(run) == ["start"] and run.read_status("train", 0, 1).state == "running"


def test_the_script_judges_its_own_task_of_an_array(run):
    status = StageStatus(stage="generate", index=1, state="done", attempt=1, job_id="44_1")
    write_json(run.status_file("generate", 1, 2), status)
    array = {"SLURM_ARRAY_JOB_ID": "44", "SLURM_JOB_ID": "46"}
    assert script(run, 1, "generate", SLURM_ARRAY_TASK_ID="1", **array).returncode == 0
    assert script(run, 1, "generate", SLURM_ARRAY_TASK_ID="0", **array).returncode == 1
    failed = run.read_status("generate", 0, 2)
    assert (failed.state, failed.job_id, failed.index) == ("failed", "44_0", 0)


def test_a_job_that_cannot_be_requeued_says_why_and_what_to_do(run, monkeypatch):
    """The controller stays away for longer than anybody waits."""
    monkeypatch.setattr(module, "REQUEUE_PATIENCE_S", 0.2)
    monkeypatch.setattr(module, "RETRY_INTERVAL_S", 0.05)
    assert "scontrol does not answer" in requeue("44", run)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SUBMITIT_"))]:
        monkeypatch.delenv(name)
    for name, value in {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "44"}.items():
        monkeypatch.setenv(name, value)
    journal(run).write("start")
    assert main([str(run.path), "train", "137"]) == 1
    status = run.read_status("train", 0, 1)
    assert status.state == "failed" and status.hint == f"python launch/resume.py {run.path} goes on"
    assert status.message.startswith("a rank died; and it could not be requeued: scontrol does not answer")
