"""Guards the way back into the queue: none for what was done, cancelled, taken over or wrong, and exactly one for what
may be tried again, also where Slurm was quicker.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcsft.attempt import after_srun as module
from hpcsft.attempt.after_srun import main, requeue
from hpcsft.records import StageStatus, read_json, write_json
from hpcsft.rundir import RunDir
from tests.attempt.made import NO_SLURM, empty_run, end_of, events, fence, journal, submitted, token
from tests.launch.command import ROOT, environment

START = ("start", {"attempt": 1})
TERM = ("notice", {"signal": "SIGTERM"})
BROKEN = ("failed", {"cause": "code", "message": "the loss is NaN", "hint": "try a lower one"})


@pytest.fixture
def run(tmp_path) -> RunDir:
    return empty_run(tmp_path)


def say(run: RunDir, state: str, job_id: str = "44", restart: int = 0, message: str | None = None) -> None:
    """What the task's status says."""
    status = StageStatus(stage="train", index=0, state=state, attempt=1, job_id=job_id, restart=restart)
    write_json(run.status_file("train", 0, 1), status.model_copy(update={"message": message}))


def script(run: RunDir, status: int, stage: str = "train", **env: str) -> subprocess.CompletedProcess[str]:
    """The end of the batch script, as Slurm runs it, on a node where Slurm does not answer."""
    command = [sys.executable, "-m", "hpcsft.attempt.after_srun", str(run.path), stage, str(status)]
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


@pytest.fixture
def impatient(monkeypatch) -> None:
    """The controller stays away for longer than anybody waits."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    monkeypatch.setattr(module, "INTERVAL_S", 0.05)
    monkeypatch.setenv("PATH", NO_SLURM)


def as_batch_script(monkeypatch, run: RunDir, status: int) -> int:
    """The exit status of the job 44 whose srun ended with `status`, in this process."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SUBMITIT_"))]:
        monkeypatch.delenv(name)
    for name, value in {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "44"}.items():
        monkeypatch.setenv(name, value)
    return main([str(run.path), "train", str(status)])


def test_a_job_that_cannot_be_requeued_says_why_and_what_to_do(run, monkeypatch, impatient):
    assert "scontrol does not answer" in requeue(token(), run)
    journal(run).write("start")
    assert as_batch_script(monkeypatch, run, 137) == 1
    status = run.read_status("train", 0, 1)
    assert status.state == "failed" and status.hint == f"python launch/resume.py {run.path} goes on"
    assert status.message.startswith("a rank died; and it could not be requeued: scontrol does not answer")


def test_a_run_that_is_cancelled_meanwhile_is_not_requeued(run, impatient):
    run.cancelled.touch()
    assert requeue(token(), run) == "it was cancelled"


JOB = "JobId=44 JobState={state} Restarts={restarts} RunTime={run_time} TimeLimit=01:00:00 PreemptTime={preempted}"
ASKED = "requeued"


@pytest.mark.parametrize(
    ("state", "restarts", "run_time", "preempted", "answer"),
    [
        ("RUNNING", 2, "00:10:00", "None", ASKED),
        ("COMPLETING", 2, "01:00:00", "None", ASKED),
        ("COMPLETING", 2, "00:10:00", "2026-11-22T10:00:00", ASKED),
        ("PENDING", 3, "00:00:00", "None", None),
        ("RUNNING", 3, "00:00:10", "None", None),
        ("CANCELLED", 2, "00:10:00", "None", "Slurm has ended the job for good"),
    ],
    ids=["its script still runs", "over its time limit", "preempted", "Slurm was quicker", "and has started it again",
         "scancel"],
)  # fmt: skip
def test_a_job_is_requeued_once_and_only_while_slurm_counts_this_attempt(
    run, monkeypatch, tmp_path, state, restarts, run_time, preempted, answer
):
    """An attempt that asked too late would end the next one."""
    line = JOB.format(state=state, restarts=restarts, run_time=run_time, preempted=preempted)
    clients = tmp_path / "clients"
    clients.mkdir()
    recorded(clients, line)
    monkeypatch.setenv("PATH", str(clients))
    told = requeue(token(restart=2), run)
    assert (clients / "asked").exists() is (answer == ASKED)
    assert told is None if answer in (ASKED, None) else told.startswith(answer)


def recorded(folder: Path, line: str) -> None:
    """An scontrol that always gives the one answer, and notes that it was asked to requeue."""
    (folder / "scontrol").write_text(
        f'#!/bin/sh\nif [ "$1 $2" = "requeue 44" ]; then : > {folder}/asked; else echo "{line}"; fi\n'
    )
    (folder / "scontrol").chmod(0o755)


def test_a_bad_node_that_leaves_too_few_ends_the_run_and_is_named(run, tmp_path):
    """In the queue it would wait for ever, and nobody would know for what."""
    clients = tmp_path / "clients"
    clients.mkdir()
    recorded(
        clients,
        JOB.format(state="RUNNING", restarts=0, run_time="00:10:00", preempted="None") + " NumNodes=2 Partition=gpu",
    )
    (clients / "sinfo").write_text("#!/bin/sh\necho n1; echo n2\n")
    (clients / "sinfo").chmod(0o755)
    say(run, "stopped")
    for event, facts in (
        START,
        ("unfit", {"nodes": {"n2": "no GPU"}}),
        ("failed", {"cause": "bad_node", "message": "n2: no GPU"}),
    ):
        journal(run).write(event, **facts)
    done = script(run, 1, PATH=str(clients))
    assert (done.returncode, done.stderr) == (1, "") and not (clients / "asked").exists()
    status = run.read_status("train", 0, 1)
    assert (status.state, status.hint) == ("failed", "whoever runs the cluster should look at the node")
    assert status.message == (
        "a node is not fit for use: n2: no GPU; without n2 the partition gpu has 1 of 2 nodes left, and the job needs 2"
    )


def test_a_disk_that_is_full_does_not_keep_a_preempted_job_out_of_the_queue(run, tmp_path):
    clients = tmp_path / "clients"
    clients.mkdir()
    recorded(clients, JOB.format(state="RUNNING", restarts=0, run_time="00:10:00", preempted="None"))
    say(run, "running")
    for event, facts in (START, TERM, ("stopped", {"cause": "preemption", "step": 3})):
        journal(run).write(event, **facts)
    command = ["/bin/sh", "-c", f"ulimit -f 0; exec {sys.executable} -m hpcsft.attempt.after_srun {run.path} train 0"]
    job = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "44", "PATH": str(clients)}
    done = subprocess.run(command, cwd=ROOT, env={**environment(), **job}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "hpcsft: train goes back into the queue: preempted\n"
    assert (clients / "asked").exists() and events(run) == ["start", "notice", "stopped"]


TOLD = "import os; open('told', 'a').write(os.environ['HPCSFT_STATE'] + ' ' + os.environ['HPCSFT_STAGE'] + '\\n')"


def tells(run: RunDir) -> None:
    """Let the run's user be told, in its file `told`, of anything that happens to it."""
    write_json(run.spec, {**read_json(run.spec), "notify": {"command": [sys.executable, "-c", TOLD]}})


def told(run: RunDir) -> str | None:
    return (run.path / "told").read_text() if (run.path / "told").exists() else None


@pytest.mark.parametrize(
    ("state", "end", "lines"),
    [("done", 0, "done \n"), ("failed", 1, "failed train\n"), ("waiting", 1, "waiting train\n")],
)
def test_the_script_that_ends_a_run_tells_its_user_and_keeps_its_exit_status(run, state, end, lines):
    tells(run)
    submitted(run, ("train", "44"))
    journal(run).write("done" if state == "done" else "failed", cause="waiting" if state == "waiting" else "code")
    say(run, state)
    done = script(run, end)
    assert (done.returncode, told(run), done.stderr) == (end, lines, "")
    assert done.stdout.startswith("hpcsft: notified: command python")


def test_a_user_who_cannot_be_told_changes_nothing(run):
    write_json(run.spec, {**read_json(run.spec), "notify": {"command": ["no-such-program"]}})
    submitted(run, ("train", "44"))
    say(run, "done")
    done = script(run, 0)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "hpcsft: could not notify: command no-such-program: No such file or directory\n"


@pytest.mark.parametrize("why", ["cancelled", "taken over", "requeued"])
def test_the_script_tells_nothing_of_a_run_that_goes_on_or_was_cancelled(run, tmp_path, why):
    """Not even if another of its tasks has failed: that one tells it."""
    tells(run)
    submitted(run, ("preprocess", "43"), ("train", "44"))
    failed = StageStatus(stage="preprocess", index=0, state="failed", attempt=1, job_id="43")
    write_json(run.status_file("preprocess", 0, 1), failed)
    journal(run).write("start", attempt=1)
    say(run, "running")
    if why == "cancelled":
        run.cancelled.touch()
    if why == "taken over":
        fence(run, restart=1).claim()
    (tmp_path / "clients").mkdir()
    if why == "requeued":
        recorded(tmp_path / "clients", JOB.format(state="RUNNING", restarts=0, run_time="00:10:00", preempted="None"))
    done = script(run, 143, PATH=str(tmp_path / "clients"))
    assert (done.returncode, told(run)) == (76 if why == "taken over" else 1, None)
    assert (tmp_path / "clients" / "asked").exists() is (why == "requeued")
