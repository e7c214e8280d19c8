"""Guards what a user learns from a stage that ran: its state, who failed first and why, with a traceback only where
nobody foresaw it; and that a task knows who it is wherever it was started.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcsft.errors import EXIT_NO_RUN, ClusterError, InputError, StageError
from hpcsft.plan import STAGES
from hpcsft.records import read_jsonl
from hpcsft.rundir import RunDir
from hpcsft.stage import StageContext, TaskIdentity, _record_failure, require, run_stage
from tests.conftest import make_spec_values
from tests.prepared import TASK, context_of, new_run

ROOT = Path(__file__).resolve().parents[1]
SCHEDULER = ("SUBMITIT_", "SLURM_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "HPCSFT_JOB_ID")


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


def events(run: RunDir) -> list[tuple[str, str, int, int]]:
    return [(row["stage"], row["event"], row["index"], row["attempt"]) for row in read_jsonl(run.attempts)]


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
    assert events(run) == [("train", "start", 0, 1), ("train", "done", 0, 1)]
    (row, _) = read_jsonl(run.attempts)
    assert row["world_size"] == 1 and row["host"] and row["job_id"] == status.job_id and "message" not in row


def test_attempts_are_counted_over_restarts(run):
    for attempt in (1, 2):
        with pytest.raises(SystemExit):
            start(run, "train", failing(StageError("no")))
        assert run.read_status("train", 0, 1).attempt == attempt
    start(run, "train", lambda context: None)
    assert [event[1:4:2] for event in events(run)] == [
        ("start", 1),
        ("failed", 1),
        ("start", 2),
        ("failed", 2),
        ("start", 3),
        ("done", 3),
    ]


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
    assert list(read_jsonl(run.attempts))[-1]["message"] == error.message


def test_an_unforeseen_error_keeps_its_traceback(run):
    with pytest.raises(ZeroDivisionError):
        start(run, "train", lambda context: 1 // 0)
    status = run.read_status("train", 0, 1)
    assert (status.state, status.message) == ("failed", "ZeroDivisionError: integer division or modulo by zero")
    assert status.hint == "the log has the traceback"
    assert events(run)[-1] == ("train", "failed", 0, 1)


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
    assert (done.returncode, done.stderr) == (1, f"usage: python jobs/{stage}.py RUN_DIR [INDEX]\n")


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
    assert [event[2] for event in events(run)] == [0, 0, 1, 1, 1, 1]


def test_the_first_task_that_fails_stops_the_others(run):
    with pytest.raises(SystemExit):
        start(run, "generate", failing(StageError("no")))
    assert run.read_status("generate", 1, 2) is None


def test_an_index_that_is_not_there_is_named(run, capsys):
    with pytest.raises(SystemExit) as left:
        start(run, "generate", failing(AssertionError()), "2")
    assert left.value.code == 1
    assert capsys.readouterr().err == "error: stage generate has tasks 0 to 1, there is no 2\n"
    assert not list(run.status.iterdir()) and not run.attempts.exists()


def rank(number: int, restart: int = 0, world_size: int = 2) -> TaskIdentity:
    return TaskIdentity(job_id="77", restart=restart, rank=number, local_rank=number, world_size=world_size)


def fail(run: RunDir, task: TaskIdentity, message: str) -> None:
    """What happens in the process of `task` when its body raises."""
    _record_failure(context_of(run, "train", task=task), StageError(message))


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
    assert [(row["event"], row["message"], row["attempt"]) for row in read_jsonl(run.attempts)] == [
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
    assert len(list(read_jsonl(run.attempts))) == 2


def test_a_requeued_attempt_is_not_the_one_that_failed(run, monkeypatch):
    """The same job id: only Slurm's count of restarts tells the attempts apart."""
    begin(run, rank(0))
    fail(run, rank(0), "first attempt")
    fail(run, rank(1, restart=1), "second attempt, before its leader started")
    assert run.read_status("train", 0, 1).message == "second attempt, before its leader started"
    environment = {**SLURM, "SLURM_JOB_ID": "77", "SLURM_PROCID": "0", "SLURM_RESTART_COUNT": "2"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    seen = []
    start(run, "train", lambda context: seen.append(run.read_status("train", 0, 1)))
    assert (seen[0].state, seen[0].restart, seen[0].attempt, seen[0].message) == ("running", 2, 3, None)


def test_only_the_leader_says_that_it_runs_and_is_done(run, monkeypatch):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    start(run, "train", lambda context: context.progress(1, 1, "steps"))
    assert not list(run.status.iterdir()) and not run.attempts.exists()


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
