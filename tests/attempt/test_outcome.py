"""Guards what becomes of a run whose attempt has ended: the right cause from what is left of it, the rank's own words
in the status, and no full disk that would keep the verdict back.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hpcsft.attempt.causes import LAUNCH_FAILED_LOG
from hpcsft.attempt.identity import TaskIdentity
from hpcsft.attempt.outcome import Outcome, cause_of_notice, settle_earlier
from hpcsft.plan import Plan
from hpcsft.records import Progress, StageStatus, read_json, write_json
from hpcsft.rundir import RunDir
from tests.attempt.made import NO_SLURM, empty_run, end_of, events, journal, token


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
UNFIT = ("failed", {"cause": "bad_node", "message": "n2: no GPU", "node": "n1"})

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
    "code, heard of after its echoes": ([START, LOST, BROKEN, LOST], 1, "code"),
    "code, before another that followed from it": ([START, BROKEN, FULL], 1, "code"),
    "full disk": ([START, FULL], 1, "disk_full"),
    "GPU memory": ([START, MEMORY], 1, "out_of_memory"),
    "a node that is not fit for use": ([START, UNFIT, LOST], 1, "bad_node"),
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


@pytest.mark.parametrize(
    ("status", "cause"), [(137, "rank_failure"), (139, "rank_failure"), (143, "signal"), (1, "signal")]
)
def test_a_rank_that_was_killed_is_told_from_the_sigterm_that_srun_sends_the_others(run, status, cause):
    for event, facts in (START, TERM, LOST):
        journal(run, job_id="local-9").write(event, **facts)
    outcome(run, "local-9").settle(status)
    assert end_of(run)["cause"] == cause


@pytest.mark.parametrize(("signal_name", "cause"), [("SIGTERM", "signal"), ("time limit", "timeout")])
def test_without_slurm_nobody_preempts(signal_name, cause):
    assert cause_of_notice(token("local-9"), signal_name) == cause


@pytest.mark.parametrize(
    ("signal_name", "left_s", "cause"),
    [
        ("SIGUSR2", None, "timeout"),
        ("SIGUSR2", 60, "timeout"),
        ("SIGUSR2", 7200, "preemption"),
        ("SIGTERM", 60, "preemption"),
    ],
)
def test_where_slurm_cannot_be_asked_the_time_that_is_left_tells_notices_apart(monkeypatch, signal_name, left_s, cause):
    """With send_user_signal a preemption sends what the end of the time limit sends. A container has no scontrol."""
    monkeypatch.setenv("SLURM_JOB_END_TIME", f"{time.time() + left_s:.0f}" if left_s else "")
    assert cause_of_notice(token(), signal_name) == cause


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
    for event, facts in (START, ("ready", {}), LOST):
        journal(run).write(event, **facts)
    verdict = outcome(run).settle(1)
    assert end_of(run)["cause"] == "out_of_memory"
    assert verdict.requeue, "a smaller micro batch needs less of the host's memory, without GPUs"
    assert verdict.message == "ran out of memory: connection closed by peer"


@pytest.mark.parametrize(
    ("stage", "gpus", "ready", "said_so", "again"),
    [
        ("train", 0, True, False, True),
        ("train", 0, True, True, True),
        ("train", 0, False, True, False),
        ("train", 8, True, True, True),
        ("train", 8, True, False, False),
        ("generate", 0, False, True, False),
    ],
)
def test_memory_is_tried_again_where_a_smaller_micro_batch_helps(run, stage, gpus, ready, said_so, again):
    train = Plan.model_validate(read_json(run.plan)).stage("train")
    plan = train.model_copy(update={"name": stage, "gpus_per_node": gpus})
    ended = Outcome(run, plan, 0, token("44", 0))
    ended.journal.write("start")
    if ready:
        ended.journal.write("ready")
    if said_so:
        ended.journal.write(MEMORY[0], **MEMORY[1])
    (run.submitit / stage).mkdir()
    (run.submitit / stage / "44_0_log.err").write_text("oom-kill")
    verdict = ended.settle(1)
    assert verdict.requeue == again == ended.journal.rows()[-1]["halve"]
    assert again or "no smaller micro batch can be tried" in verdict.message


def test_memory_of_another_job_is_not_this_ones(run):
    (run.submitit / "train").mkdir()
    (run.submitit / "train" / "43_0_log.err").write_text("oom-kill")
    journal(run).write("start")
    outcome(run).settle(137)
    assert end_of(run)["cause"] == "rank_failure"


@pytest.mark.parametrize("line", LAUNCH_FAILED_LOG)
def test_a_node_that_did_not_even_start_its_tasks_has_failed(run, line):
    (run.submitit / "train").mkdir()
    (run.submitit / "train" / "44_0_log.err").write_text(f"srun: error: {line.capitalize()}\n")
    assert outcome(run).settle(1).requeue
    assert end_of(run)["cause"] == "node_failure"
    journal(run, restart=1).write("start")
    (run.submitit / "train" / "44_0_log.err").write_text(f"srun: error: {line.capitalize()}\n" * 2)
    assert not outcome(run, restart=1).settle(1).requeue, "its tasks have run"
    assert end_of(run)["cause"] == "code"


def test_what_slurm_wrote_about_earlier_attempts_does_not_count_again(run):
    """All attempts of a job share the files that the launcher writes."""
    log = run.submitit / "train" / "44_0_log.err"
    log.parent.mkdir()
    log.write_text("slurmstepd: error: Detected 1 oom_kill event in ...\n")
    causes = []
    for restart, more in enumerate(("", "srun: error: n1: task 0: Killed\n", "oom-kill\n")):
        with open(log, "a") as file:
            file.write(more)
        journal(run, restart=restart).write("start")
        outcome(run, restart=restart).settle(137)
        causes.append(end_of(run)["cause"])
    assert causes == ["out_of_memory", "rank_failure", "out_of_memory"]


@pytest.mark.parametrize(
    ("rows", "progressed"),
    [
        ([], False),
        ([("start", {})], False),
        ([("resumed", {"step": 5})], False),
        ([("resumed", {"step": 5}), ("saved", {"step": 5})], False),
        ([("resumed", {"step": 5}), ("saved", {"step": 6})], True),
        ([("resumed", {"step": 0}), ("saved", {"step": 2}), ("saved", {"step": 4})], True),
    ],
)
def test_training_progresses_by_a_checkpoint_beyond_the_one_it_came_from(run, rows, progressed):
    """However far an attempt before it had come, whose checkpoints may have been damaged since."""
    journal(run, restart=0).write("resumed", step=0)
    journal(run, restart=0).write("saved", step=9)
    say(run, "running", progress=Progress(done=12, total=20, unit="steps"))
    for event, facts in rows:
        journal(run, restart=1).write(event, **facts)
    outcome(run, restart=1).settle(137)
    assert end_of(run)["progressed"] is progressed


@pytest.mark.parametrize(
    ("before", "done", "progressed"), [(0, 0, False), (0, 1, True), (12, 12, False), (12, 13, True)]
)
def test_other_stages_progress_by_what_they_have_finished(run, before, done, progressed):
    file = run.status_file("judge", 0, 1)
    progress = Progress(done=done, total=20, unit="verdicts")
    write_json(file, StageStatus(stage="judge", index=0, state="running", attempt=1, job_id="44", progress=progress))
    journal(run, stage="judge").write("start", done=before)
    outcome(run, stage="judge").settle(137)
    assert end_of(run, "judge")["progressed"] is progressed


@pytest.mark.parametrize(
    ("rows", "unfit"),
    [
        ([("unfit", {"nodes": {"n2": "no GPU", "n3": "no room"}}), UNFIT], ["n2", "n3"]),
        ([("unfit", {"nodes": {}}), UNFIT], []),
        ([UNFIT], ["n1"]),
        ([("failed", {"cause": "bad_node", "message": "the GPU has fallen off the bus"})], []),
    ],
    ids=["as checked", "hardly a node's fault", "where a rank failed", "on a node without a name"],
)
def test_the_nodes_that_the_next_attempt_had_better_not_get(run, monkeypatch, rows, unfit):
    for event, facts in [START, *rows]:
        journal(run).write(event, **facts)
    ended = outcome(run)
    assert ended.settle(1).requeue
    assert (ended.unfit, end_of(run).get("unfit", [])) == (unfit, unfit)
    monkeypatch.setenv("SLURMD_NODENAME", "n4")
    journal(run, restart=1).write("failed", cause="bad_node", message="uncorrectable ECC error")
    again = outcome(run, restart=1)
    again.settle(1)
    assert again.unfit == [*unfit, "n4"], "those of earlier attempts count on"


def test_without_slurm_there_is_no_other_node(run):
    journal(run, job_id="local-9").write(*UNFIT[:1], **UNFIT[1])
    verdict = outcome(run, "local-9").settle(1)
    assert (verdict.requeue, verdict.message) == (False, "n2: no GPU")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow any more."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_a_full_disk_does_not_keep_the_verdict_back(run):
    """Neither a job's way back into the queue nor the count of its attempts."""
    say(run, "running")
    for event, facts in (START, TERM, STOPPED):
        journal(run).write(event, **facts)
    end = outcome(run)
    with full_disk():
        verdict = end.settle(0)
        end.record(verdict)
    assert verdict.requeue and verdict.message == "reached its time limit"
    assert (events(run)[-1], run.read_status("train", 0, 1).state) == ("stopped", "running")
    own = empty_run(run.path.parent / "other", timeout=0)
    journal(own).write(*STOPPED[:1], **STOPPED[1])
    with full_disk():
        assert not outcome(own).settle(0).requeue, "an attempt counts also if nobody could write how it ended"


def test_the_verdict_in_the_status_keeps_what_was_known(run):
    progress = Progress(done=12, total=20, unit="steps")
    say(run, "running", restart=0, log="logs/train/44_0/0.err", progress=progress, started="2026-11-30T10:00:00+00:00")
    journal(run).write("start")
    tried_again = outcome(run)
    tried_again.record(tried_again.settle(137))
    status = run.read_status("train", 0, 1)
    assert (status.state, status.message, status.hint) == ("stopped", "a rank died", None)
    assert (status.log, status.progress) == ("logs/train/44_0/0.err", progress)
    assert status.started == "2026-11-30T10:00:00+00:00"
    journal(run, restart=1).write(*BROKEN[:1], **BROKEN[1])
    over = outcome(run, restart=1)
    over.record(over.settle(1))
    status = run.read_status("train", 0, 1)
    assert (status.state, status.restart) == ("failed", 1)
    assert (status.message, status.hint) == ("the loss is NaN", "try a lower one")


def test_what_waits_for_a_person_is_not_tried_again_and_goes_on_waiting(run):
    say(run, "waiting", message="there is no key", hint="export KEY=...")
    journal(run).write("start")
    journal(run).write("failed", cause="waiting", message="there is no key", hint="export KEY=...")
    waiting = outcome(run)
    verdict = waiting.settle(1)
    assert (verdict.requeue, verdict.message, end_of(run)["cause"]) == (False, "there is no key", "waiting")
    waiting.record(verdict)
    status = run.read_status("train", 0, 1)
    assert (status.state, status.message, status.hint) == ("waiting", "there is no key", "export KEY=...")


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


def test_an_attempt_without_a_word_does_not_point_at_the_log_of_the_one_before(run):
    """The monitor would tell an old cause for a new failure."""
    say(run, "failed", job_id="43", log="submitit/train/43_0_log.err")
    silent = outcome(run)
    silent.record(silent.settle(3))
    said = run.read_status("train", 0, 1)
    assert (said.job_id, said.attempt, said.log) == ("44", 2, None) and "exit status 3" in said.message
