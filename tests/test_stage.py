"""Guards what a user learns from a stage that ran: its state, who failed first and why, with a traceback only where
nobody foresaw it; and that a task knows who it is wherever it was started.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcsft.attempt.identity import TaskIdentity
from hpcsft.errors import (
    EXIT_FENCED,
    EXIT_NO_RUN,
    EXIT_STOPPED,
    EXIT_WAITING,
    ClusterError,
    Fenced,
    InputError,
    StageError,
    Stopped,
    Waiting,
)
from hpcsft.plan import STAGES
from hpcsft.records import read_json, read_jsonl, write_json
from hpcsft.rundir import RunDir
from hpcsft.stage import StageContext, require, run_stage
from hpcsft.stage.ends import record_failure
from tests.conftest import make_spec_values
from tests.prepared import TASK, context_of, new_run
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[1]
SCHEDULER = ("SUBMITIT_", "SLURM_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "HPCSFT_JOB_ID", "HPCSFT_RESTART")


@pytest.fixture(autouse=True)
def by_hand(monkeypatch) -> None:
    """No variable of a scheduler that these tests may themselves run under."""
    for name in list(os.environ):
        if name.startswith(SCHEDULER):
            monkeypatch.delenv(name)


@pytest.fixture
def spec_values(tmp_path) -> dict[str, Any]:
    """As tests/conftest.py's, with inputs that are not there: no body here reads them."""
    return make_spec_values(Path("/models/tiny"), Path("/data/a.jsonl"), Path("/data/p.json"), tmp_path / "runs")


@pytest.fixture
def run(spec_values) -> RunDir:
    return new_run(spec_values)


def journal(run: RunDir, stage: str = "train", index: int = 0, tasks: int = 1) -> list[dict[str, Any]]:
    return list(read_jsonl(run.journal_file(stage, index, tasks)))


def events(run: RunDir) -> list[tuple[str, int]]:
    return [(row["event"], row["attempt"]) for row in journal(run)]


def start(run: RunDir, stage: str, body: Callable[[StageContext], None], *index: str) -> None:
    run_stage(stage, body, [str(run.path), *index])


def failing(error: BaseException) -> Callable[[StageContext], None]:
    def body(context: StageContext) -> None:
        raise error

    return body


def test_a_stage_is_running_while_it_runs_and_done_after(run):
    seen = []

    def body(context: StageContext) -> None:
        seen.append(run.read_status("train", 0, 1))
        context.progress(3, 7, "steps")
        context.progress(7, 7, "steps")

    start(run, "train", body)
    assert (seen[0].state, seen[0].attempt, seen[0].progress) == ("running", 1, None)
    status = run.read_status("train", 0, 1)
    assert (status.state, status.stage, status.index, status.message) == ("done", "train", 0, None)
    assert status.progress.model_dump() == {"done": 7, "total": 7, "unit": "steps"}
    assert status.job_id == f"hand-{os.getpid()}" and status.started == seen[0].started <= status.updated
    assert events(run) == [("start", 1), ("done", 1)]
    (row, _) = journal(run)
    assert (row["stage"], row["index"], row["restart"]) == ("train", 0, 0)
    assert row["world_size"] == 1 and row["host"] and row["job_id"] == status.job_id and "message" not in row


def test_attempts_are_counted_over_restarts(run):
    for attempt in (1, 2):
        with pytest.raises(SystemExit):
            start(run, "train", failing(StageError("no")))
        assert run.read_status("train", 0, 1).attempt == attempt
    start(run, "train", lambda context: None)
    pairs = [("start", 1), ("failed", 1), ("start", 2), ("failed", 2), ("start", 3), ("done", 3)]
    assert events(run) == pairs


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StageError("the data is bad", "look at row 7"), 1),
        (InputError("the file is gone", "fetch it"), 2),
        (ClusterError("Slurm is away"), 3),
    ],
)
def test_a_foreseen_error_is_two_lines_and_its_own_exit_code(run, capsys, error, code):
    with pytest.raises(SystemExit) as left:
        start(run, "train", failing(error))
    assert left.value.code == code
    hint = f"hint: {error.hint}\n" if error.hint else ""
    assert capsys.readouterr().err == f"error: {error.message}\n{hint}"
    status = run.read_status("train", 0, 1)
    assert (status.state, status.message, status.hint) == ("failed", error.message, error.hint)
    assert (journal(run)[-1]["message"], journal(run)[-1]["cause"]) == (error.message, "code")


def test_what_only_a_person_can_give_is_waited_for_and_the_command_names_the_run(run, capsys):
    with pytest.raises(SystemExit) as left:
        start(run, "judge", failing(Waiting("there is no key", "export KEY=..., then python jobs/judge.py RUN_DIR")))
    assert left.value.code == EXIT_WAITING
    hint = f"export KEY=..., then python jobs/judge.py {run.path}"
    assert capsys.readouterr().err == f"error: there is no key\nhint: {hint}\n"
    status = run.read_status("judge", 0, 1)
    assert (status.state, status.message, status.hint) == ("waiting", "there is no key", hint)
    assert journal(run, "judge")[-1]["cause"] == "waiting"


@pytest.mark.parametrize("words", [[], ["--force"], ["--force", "--over-budget"]])
def test_options_are_for_the_stages_that_know_them(run, words):
    seen = []
    run_stage(
        "judge", lambda context: seen.append(context.options), [*words, str(run.path)], ["--force", "--over-budget"]
    )
    assert seen == [frozenset(words)]
    with pytest.raises(SystemExit, match=r"usage: python jobs/train.py RUN_DIR \[INDEX\]$"):
        run_stage("train", failing(AssertionError()), [str(run.path), "--force"])


def test_help_is_no_error(run, capsys):
    run_stage("train", failing(AssertionError()), ["--help"])
    assert capsys.readouterr().out == "usage: python jobs/train.py RUN_DIR [INDEX]\n"


def test_a_start_by_hand_can_be_refused_before_anything_is_touched(run):
    def refuse(given: RunDir) -> None:
        raise StageError("the queue holds it")

    with pytest.raises(SystemExit):
        run_stage("judge", failing(AssertionError()), [str(run.path)], before=refuse)
    assert run.read_status("judge", 0, 1) is None and not run.fence_file("judge", 0, 1).exists()


def test_ctrl_c_by_hand_stops_between_items_and_tells_how_to_go_on(run, capsys):
    def body(context: StageContext) -> None:
        context.progress(3, 7, "verdicts")
        os.kill(os.getpid(), signal.SIGINT)
        wait_for("the notice", lambda: context.notice.requested)
        context.stop_if_asked()

    with pytest.raises(SystemExit) as left:
        start(run, "judge", body)
    assert left.value.code == EXIT_STOPPED
    status = run.read_status("judge", 0, 1)
    hint = f"what is made so far is kept; python jobs/judge.py {run.path} goes on"
    assert (status.state, status.message, status.hint) == ("waiting", "stopped by SIGINT after 3 of 7 verdicts", hint)
    assert capsys.readouterr().err.endswith(f"hint: {hint}\n")


def test_a_second_ctrl_c_interrupts(run):
    def body(context: StageContext) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            wait_for("the notice", lambda: context.notice.requested)

    with pytest.raises(KeyboardInterrupt):
        start(run, "judge", body)


def test_an_unforeseen_error_keeps_its_traceback(run):
    with pytest.raises(ZeroDivisionError):
        start(run, "train", lambda context: 1 // 0)
    status = run.read_status("train", 0, 1)
    assert (status.state, status.message) == ("failed", "ZeroDivisionError: integer division or modulo by zero")
    assert status.hint == "the log has the traceback"
    assert events(run)[-1] == ("failed", 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(7)])
def test_an_end_from_outside_is_told_from_an_error(run, error):
    with pytest.raises(type(error)):
        start(run, "train", failing(error))
    status = run.read_status("train", 0, 1)
    assert (status.state, status.message) == ("failed", f"stopped from outside ({type(error).__name__})")


def job(run: RunDir, stage: str, *index: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / f"{stage}.py"), str(run.path), *index]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")


def test_the_exit_code_and_the_words_of_a_real_job(run):
    foreseen = job(run, "report")
    assert foreseen.returncode == 2 and "Traceback" not in foreseen.stderr
    assert re.fullmatch(
        r"error: .*manifest\.json is missing\nhint: run the stage 'preprocess' first.*\n", foreseen.stderr
    )
    body = "from hpcsft.stage import run_stage; run_stage('report', lambda context: {}['a key'])"
    unforeseen = subprocess.run([sys.executable, "-c", body, run.path], capture_output=True, text=True, cwd=ROOT)
    assert unforeseen.returncode == 1 and unforeseen.stderr.startswith("Traceback")
    assert unforeseen.stderr.splitlines()[-1] == "KeyError: 'a key'"
    assert unforeseen.stderr.splitlines()[-1] == run.read_status("report", 0, 1).message


@pytest.mark.parametrize("stage", STAGES)
def test_every_job_body_starts_and_says_how(stage):
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / f"{stage}.py")], capture_output=True, text=True, timeout=60, cwd="/"
    )
    force = " [--force] [--over-budget]" if stage == "judge" else ""
    assert (done.returncode, done.stderr) == (1, f"usage: python jobs/{stage}.py RUN_DIR [INDEX]{force}\n")


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "-1"], ["a", "1", "2"], ["a", "1.0"]])
def test_wrong_arguments_are_answered_with_the_usage(arguments):
    with pytest.raises(SystemExit, match=r"usage: python jobs/train\.py RUN_DIR \[INDEX\]"):
        run_stage("train", failing(AssertionError()), arguments)


def test_no_run_and_no_such_stage(run, tmp_path, spec_values, capsys):
    with pytest.raises(SystemExit) as left:
        run_stage("train", failing(AssertionError()), [str(tmp_path)])
    assert left.value.code == EXIT_NO_RUN
    assert "no run here" in capsys.readouterr().err
    spec_values["evaluate"] = None
    with pytest.raises(SystemExit) as left:
        start(new_run(spec_values), "judge", failing(AssertionError()))
    assert left.value.code == 1
    assert capsys.readouterr().err == (
        "error: this run has no stage 'judge'\nhint: its stages: preprocess, train, report\n"
    )


def test_without_an_index_all_tasks_run_in_order(run):
    indexes = []
    start(run, "generate", lambda context: indexes.append(context.index))
    assert indexes == [0, 1]
    assert sorted(path.name for path in run.status.iterdir()) == ["generate-0.json", "generate-1.json"]
    start(run, "generate", lambda context: indexes.append(context.index), "1")
    assert indexes == [0, 1, 1]
    assert [len(journal(run, "generate", index, tasks=2)) for index in (0, 1)] == [2, 4]


def test_the_first_task_that_fails_stops_the_others(run):
    with pytest.raises(SystemExit):
        start(run, "generate", failing(StageError("no")))
    assert run.read_status("generate", 1, 2) is None


def test_an_index_that_is_not_there_is_named(run, capsys):
    with pytest.raises(SystemExit) as left:
        start(run, "generate", failing(AssertionError()), "2")
    assert left.value.code == 1
    assert capsys.readouterr().err == "error: stage generate has tasks 0 to 1, there is no 2\n"
    assert not list(run.status.iterdir()) and not list(run.attempts.iterdir())


def rank(number: int, restart: int = 0, world_size: int = 2) -> TaskIdentity:
    return TaskIdentity(job_id="77", restart=restart, rank=number, local_rank=number, world_size=world_size)


def fail(run: RunDir, task: TaskIdentity, message: str, kind: type[Exception] = StageError) -> None:
    """What happens in the process of `task` when its body raises."""
    record_failure(context_of(run, "train", task=task), kind(message))


def restart_under_slurm(monkeypatch, restart: int, job_id: str = "77") -> None:
    """From here on this process is rank 0 of two of a job of Slurm, which nobody can ask."""
    environment = {**SLURM, "SLURM_JOB_ID": job_id, "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
    for name, value in {**environment, "SLURM_RESTART_COUNT": str(restart), "PATH": "/nowhere"}.items():
        monkeypatch.setenv(name, value)


def begin(run: RunDir, task: TaskIdentity, attempt: int = 1) -> None:
    context = context_of(run, "train", task=task)
    context.attempt = attempt
    context.write_status("running")


def test_the_first_rank_that_fails_is_the_cause(run):
    """The others fail because of it, in collectives that lost a member."""
    begin(run, rank(0), attempt=3)
    fail(run, rank(1), "the loss is NaN")
    fail(run, rank(0), "connection closed by peer")
    status = run.read_status("train", 0, 1)
    assert (status.state, status.message, status.attempt) == ("failed", "the loss is NaN", 3)
    assert [(row["event"], row["message"], row["attempt"]) for row in journal(run)] == [
        ("failed", "the loss is NaN", 3)
    ]


def test_every_attempt_has_a_first_failure_of_its_own(run):
    begin(run, rank(0))
    fail(run, rank(1), "first attempt")
    begin(run, rank(0, restart=1), attempt=2)
    fail(run, rank(0, restart=1), "second attempt")
    fail(run, rank(1, restart=1), "because of it")
    status = run.read_status("train", 0, 1)
    assert (status.message, status.restart, status.attempt) == ("second attempt", 1, 2)
    assert len(journal(run)) == 2


def test_a_requeued_attempt_is_not_the_one_that_failed(run, monkeypatch):
    """The same job id: only Slurm's count of restarts tells the attempts apart."""
    begin(run, rank(0))
    fail(run, rank(0), "first attempt")
    fail(run, rank(1, restart=1), "NCCL error: before the leader of the second started", RuntimeError)
    assert run.read_status("train", 0, 1).message == "RuntimeError: NCCL error: before the leader of the second started"
    restart_under_slurm(monkeypatch, 2)
    seen = []
    start(run, "train", lambda context: seen.append(run.read_status("train", 0, 1)))
    assert (seen[0].state, seen[0].restart, seen[0].attempt, seen[0].message) == ("running", 2, 3, None)


def test_only_the_leader_says_that_it_runs_and_is_done(run, monkeypatch):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    start(run, "train", lambda context: context.progress(1, 1, "steps"))
    assert not list(run.status.iterdir()) and not list(run.attempts.iterdir())


def test_progress_is_cheap(run):
    context = context_of(run, "train")
    written = set()
    for done in range(1000):
        context.progress(done, 1000, "steps")
        written.add(run.read_status("train", 0, 1).progress.done)
    assert 0 in written and len(written) < 100
    context.progress(1000, 1000, "steps")
    assert run.read_status("train", 0, 1).progress.done == 1000


def test_the_log_is_named_relative_to_the_run(run):
    context = context_of(run, "train")
    assert context.log_file("err") is None  # by hand there is none
    folder = run.log_folder("train", TASK.job_id, TASK.restart)
    folder.mkdir(parents=True)
    (folder / "0.err").touch()
    context.write_status("running")
    assert run.read_status("train", 0, 1).log == "logs/train/test-1_0/0.err"


def test_a_line_in_the_log_has_its_time(run, capsys):
    context_of(run, "train").say("epoch 1")
    assert re.fullmatch(r"\d\d:\d\d:\d\d epoch 1\n", capsys.readouterr().out)


def test_what_is_required_is_asked_for(tmp_path):
    require(tmp_path, "train")
    with pytest.raises(InputError, match=r"manifest\.json is missing") as caught:
        require(tmp_path / "manifest.json", "preprocess")
    assert caught.value.hint == "run the stage 'preprocess' first: python jobs/preprocess.py RUN_DIR"


SLURM = {
    "SUBMITIT_EXECUTOR": "slurm",
    "SLURM_JOB_ID": "44",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "4",
}
ARRAY = {**SLURM, "SLURM_JOB_ID": "46", "SLURM_ARRAY_JOB_ID": "44", "SLURM_ARRAY_TASK_ID": "2"}
LOCAL = {
    "SUBMITIT_EXECUTOR": "local",
    "SUBMITIT_LOCAL_GLOBALID": "1",
    "SUBMITIT_LOCAL_LOCALID": "1",
    "SUBMITIT_LOCAL_NTASKS": "2",
    "HPCSFT_JOB_ID": "local-9",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (SLURM, ("44", 0, 3, 1, 4)),
        ({**SLURM, "SLURM_RESTART_COUNT": "2"}, ("44", 2, 3, 1, 4)),
        (ARRAY, ("44_2", 0, 3, 1, 4)),
        (LOCAL, ("local-9", 0, 1, 1, 2)),
        ({**LOCAL, **{name: SLURM[name] for name in SLURM if name.startswith("SLURM")}}, ("local-9", 0, 1, 1, 2)),
        ({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}, (f"hand-{os.getppid()}", 0, 5, 1, 8)),
        ({}, (f"hand-{os.getpid()}", 0, 0, 0, 1)),
    ],
    ids=["slurm", "requeued", "array", "local", "local inside a job", "torchrun", "by hand"],
)
def test_a_task_knows_who_it_is(monkeypatch, environment: dict[str, str], expected: tuple[Any, ...]):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    task = TaskIdentity.from_environment()
    assert (task.job_id, task.restart, task.rank, task.local_rank, task.world_size) == expected


def test_a_rank_that_fails_before_the_leader_starts_stays_the_cause(run, monkeypatch):
    """A node with a broken installation fails while rank 0's node still imports torch."""
    fail(run, rank(1), "No module named 'deepspeed'")
    for name, value in {**SLURM, "SLURM_JOB_ID": "77", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        start(run, "train", failing(StageError("connection closed by peer")))
    assert run.read_status("train", 0, 1).message == "No module named 'deepspeed'"


def test_what_may_be_tried_again_is_not_called_failed(run):
    """Only whoever decides about the next attempt may say so; by hand nobody does."""
    begin(run, rank(0))
    fail(run, rank(1), "[gloo] Connection closed by peer", RuntimeError)
    assert (run.read_status("train", 0, 1).state, journal(run)[-1]["cause"]) == ("stopped", "rank_failure")
    with pytest.raises(RuntimeError):
        start(run, "train", failing(RuntimeError("[gloo] Connection closed by peer")))
    assert (run.read_status("train", 0, 1).state, journal(run)[-1]["cause"]) == ("failed", "rank_failure")


def test_a_job_that_slurm_requeues_by_itself_after_a_code_error_does_not_run_it_again(run, monkeypatch, capsys):
    begin(run, rank(0))
    fail(run, rank(1), "the loss is NaN")
    restart_under_slurm(monkeypatch, 1)
    with pytest.raises(SystemExit) as left:
        start(run, "train", lambda context: pytest.fail("it ran"))
    assert left.value.code == 1 and "error: the loss is NaN" in capsys.readouterr().err
    status = run.read_status("train", 0, 1)
    assert (status.state, status.message, status.restart) == ("failed", "the loss is NaN", 1)
    ends = [(row["restart"], row["cause"]) for row in journal(run) if row["event"] == "end"]
    assert ends == [(0, "code")]


def test_the_attempt_before_is_looked_back_at_once(run, monkeypatch):
    """Its node went with its batch script: nobody wrote down how it ended."""
    restart_under_slurm(monkeypatch, 0)
    with pytest.raises(SystemExit):
        start(run, "train", failing(Stopped("stopped after step 3")))
    for restart in (1, 2):
        restart_under_slurm(monkeypatch, restart)
        with contextlib.suppress(SystemExit):
            start(run, "train", failing(Fenced("as if the node had gone")) if restart == 1 else lambda context: None)
    ends = [(row["restart"], row["cause"]) for row in journal(run) if row["event"] == "end"]
    assert ends == [(0, "preemption"), (1, "node_failure")]
    assert run.read_status("train", 0, 1).state == "done"


def test_a_stage_that_is_told_to_stop_keeps_its_progress_and_says_what_told_it(run, capsys, monkeypatch):
    driver = {"SUBMITIT_EXECUTOR": "local", "HPCSFT_JOB_ID": "local-7"}
    ranks = {
        f"SUBMITIT_LOCAL_{name}": number for name, number in (("GLOBALID", "0"), ("LOCALID", "0"), ("NTASKS", "1"))
    }
    for name, value in {**driver, **ranks}.items():
        monkeypatch.setenv(name, value)

    def body(context: StageContext) -> None:
        context.progress(3, 7, "steps")
        context.stop_if_asked()
        os.kill(os.getpid(), signal.SIGUSR2)
        wait_for("the notice", lambda: context.notice.requested)
        os.kill(os.getpid(), signal.SIGTERM)
        context.stop_if_asked()
        pytest.fail("it went on")

    with pytest.raises(SystemExit) as left:
        start(run, "train", body)
    assert left.value.code == EXIT_STOPPED == 75
    assert "error: stopped by SIGUSR2 after 3 of 7 steps" in capsys.readouterr().err
    status = run.read_status("train", 0, 1)
    assert (status.state, status.message) == ("stopped", "stopped by SIGUSR2 after 3 of 7 steps")
    assert (status.progress.done, status.hint) == (3, "what is made so far is kept")
    assert [row["event"] for row in journal(run)] == ["start", "notice", "stopped"]
    assert (journal(run)[1]["signal"], journal(run)[2]["step"]) == ("SIGUSR2", 3)


def test_an_attempt_that_was_taken_over_writes_nothing_any_more(run, monkeypatch):
    """Neither progress, nor that it is done, nor that it failed; it ends as fenced off."""
    restart_under_slurm(monkeypatch, 0)

    def body(context: StageContext) -> None:
        newer = context_of(run, "train", task=rank(0, restart=1))
        newer.fence.claim()
        newer.write_status("running")
        context.progress(7, 7, "steps")

    for ending in (body, lambda context: None, failing(StageError("a zombie's word"))):
        with pytest.raises(SystemExit) as left:
            start(run, "train", ending)
        assert left.value.code == EXIT_FENCED == 76
        status = run.read_status("train", 0, 1)
        assert (status.state, status.restart, status.progress) == ("running", 1, None)
    assert [row["event"] for row in journal(run)] == ["start"]


def test_a_zombie_that_fails_in_the_middle_leaves_the_status_alone(run, monkeypatch):
    restart_under_slurm(monkeypatch, 0)

    def body(context: StageContext) -> None:
        newer = context_of(run, "train", task=rank(0, restart=1))
        newer.fence.claim()
        newer.write_status("running")
        raise StageError("a zombie's word")

    with pytest.raises(SystemExit):
        start(run, "train", body)
    assert (run.read_status("train", 0, 1).state, [row["event"] for row in journal(run)]) == ("running", ["start"])


def test_a_spec_that_was_edited_by_hand_is_not_run(run, capsys):
    write_json(run.submitted, {"spec": read_json(run.spec), "plan": read_json(run.plan)})
    write_json(run.spec, {**read_json(run.spec), "seed": 12345})
    with pytest.raises(SystemExit) as leave:
        run_stage("report", lambda context: pytest.fail("it ran"), [str(run.path)])
    assert leave.value.code == 1 and "seed is 12345, submitted was" in capsys.readouterr().err
    status = read_json(run.status / "report.json")
    assert status["state"] == "failed" and "was edited after its submission" in status["message"]
    run.spec.write_text('{"seed": "not a number"}')
    with pytest.raises(SystemExit):
        run_stage("report", lambda context: pytest.fail("it ran"), [str(run.path)])
    assert "seed is 'not a number', submitted was" in capsys.readouterr().err


def test_a_run_that_goes_while_a_stage_works_is_told_and_not_made_anew(run, capsys):
    def body(context):
        run.path.rename(run.path.with_name("elsewhere"))
        context.progress(1, 1, "rows")

    with pytest.raises(SystemExit) as leave:
        run_stage("report", body, [str(run.path)])
    assert leave.value.code == EXIT_NO_RUN
    assert f"error: the run directory {run.path} is gone: moved or deleted" in capsys.readouterr().err
    assert not run.path.exists()


def test_a_cancelled_run_is_not_begun(run, capsys):
    run.cancelled.touch()
    with pytest.raises(SystemExit) as left:
        start(run, "train", lambda context: pytest.fail("it ran"))
    assert left.value.code == EXIT_STOPPED
    assert "error: this run was cancelled" in capsys.readouterr().err
    assert not list(run.status.iterdir()) and not list(run.attempts.iterdir())


def test_a_disk_that_is_full_ends_neither_progress_nor_words(run, capfd):
    """Only what must be kept may end a stage."""
    context = context_of(run, "train")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
        context.progress(1, 7, "steps")
        with pytest.raises(OSError):
            context.write_status("running")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    context.progress(7, 7, "steps")
    assert run.read_status("train", 0, 1).progress.done == 7


def test_a_disk_that_is_full_when_the_notice_comes_makes_no_failure_of_it(run):
    """What is kept is kept; only the words about it are missing."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def body(context: StageContext) -> None:
        context.progress(3, 7, "steps")
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for("the notice", lambda: context.notice.requested)
        context.stop_if_asked()

    try:
        with pytest.raises(SystemExit) as left:
            start(run, "train", body)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert left.value.code == EXIT_STOPPED
    assert [row["event"] for row in journal(run)] == ["start"]
    assert run.read_status("train", 0, 1).state == "running"


def test_an_attempt_tells_what_was_done_before_it(run):
    """By that, and not by what all attempts have done, it is judged whether it got on."""
    for done in (3, 5):
        start(run, "judge", lambda context, done=done: context.progress(done, 5, "verdicts"))
    assert [row["done"] for row in journal(run, "judge") if row["event"] == "start"] == [0, 3]
