"""Submission while Slurm, the network or the user interrupts it: no job is started twice, and none is lost.

The sbatch on PATH is the real one behind a script that does what the surroundings might do to it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcsft.cluster import intent
from hpcsft.cluster.submit import cancel_run, submit_experiment
from hpcsft.errors import ClusterError, SubmissionError, UnclearError
from hpcsft.plan import make_plan
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec, parse_spec
from tests.cluster.minislurm import MiniSlurm
from tests.launch.command import ROOT, environment, launch
from tests.waiting import wait_for

pytestmark = pytest.mark.slurm

STAGES = ["preprocess", "train", "generate", "judge", "report"]
LOST_ANSWER = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
Sbatch = Callable[[str], None]


@pytest.fixture
def spec(slurm: MiniSlurm, spec_values: dict[str, Any], tmp_path: Path) -> ExperimentSpec:
    """The tiny spec for the real Slurm, whose jobs are held: nothing but submission is looked at."""
    spec_values["cluster"] = {
        "kind": "slurm",
        "partition": "low",
        "time": "00:10:00",
        "cpus_per_task": 1,
        "sbatch": {"hold": True},
        "train": {"nodes": 2, "tasks_per_node": 1},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec_values))
    return parse_spec(spec_values)


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sbatch:
    """Put a script before the real sbatch: bash, with $stage, $real, and what it does in the end left to it."""
    real = shutil.which("sbatch")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def replace(text: str) -> None:
        head = f'#!/bin/bash\nreal={real}\nstage=$(grep -oP -- "--job-name=[^.]*\\.\\K\\w+" "$1")\n'
        trial = 'case " $* " in *" --test-only "*) exec $real "$@";; esac\n'  # the preflight's
        (folder / "sbatch").write_text(head + trial + text + '\nexec $real "$@"\n')
        (folder / "sbatch").chmod(0o755)

    return replace


def submit(spec: ExperimentSpec) -> RunDir:
    return submit_experiment(spec, make_plan(spec), None, ["pytest"])[0]


def jobs_in_queue(run: RunDir) -> dict[str, set[str]]:
    """Stage -> ids of all jobs that Slurm was ever given for it and that are not cancelled."""
    lines = subprocess.run(
        ["squeue", "-h", "--states=all", "-o", "%F|%T|%k"], capture_output=True, text=True, check=True
    )
    found: dict[str, set[str]] = {}
    for line in lines.stdout.splitlines():
        job_id, state, comment = line.split("|", 2)
        told = comment.split(":")
        if told[:2] == ["hpcsft", run.path.name] and state != "CANCELLED":
            found.setdefault(told[2], set()).add(job_id)
    return found


def assert_each_once(run: RunDir) -> None:
    """Slurm has one job for each stage, and submission.json knows exactly these."""
    submission = run.read_submission()
    assert submission is not None and submission.intent is None
    assert Counter(job.stage for job in submission.jobs) == Counter(STAGES)
    assert jobs_in_queue(run) == {job.stage: {job.job_id} for job in submission.jobs}


def test_an_answer_that_is_lost_after_slurm_took_the_job_starts_nothing_twice(spec, sbatch, slurm, capsys):
    sbatch(f'if [ $stage = train ]; then $real "$@" >&2; echo "{LOST_ANSWER}" >&2; exit 1; fi')
    run = submit(spec)
    assert_each_once(run)
    assert "looking whether Slurm has taken train" in capsys.readouterr().err
    jobs = run.read_submission().latest()
    assert slurm.job(jobs["generate"].job_id)["Dependency"].startswith(f"afterok:{jobs['train'].job_id}")
    cancel_run(run)


def test_an_answer_that_is_lost_before_slurm_took_the_job_takes_everything_back(spec, sbatch, monkeypatch):
    monkeypatch.setattr(intent, "SIGHT_S", 1.0)
    sbatch(f'if [ $stage = train ]; then echo "{LOST_ANSWER}" >&2; exit 1; fi')
    with pytest.raises(ClusterError, match=r"Socket timed out.*; the job is not in the queue") as error:
        submit(spec)
    assert error.value.message.endswith("(preprocess had been submitted, and is cancelled again)")
    run = RunDir(spec.run_path)
    assert not run.path.parent.exists() and not jobs_in_queue(run)


@pytest.mark.parametrize("how", ["exit 1", "kill -9 $$"])
def test_a_site_that_replaces_comments_and_an_sbatch_that_dies_without_a_word(spec, sbatch, how):
    sbatch(f'if [ $stage = train ]; then $real --comment=sites-own "$@" >&2 2>/dev/null; {how}; fi')
    run = submit(spec)
    submission = run.read_submission()
    assert Counter(job.stage for job in submission.jobs) == Counter(STAGES) and submission.intent is None
    assert jobs_in_queue(run).keys() == set(STAGES) - {"train"}
    cancel_run(run)


@pytest.fixture
def command(spec: ExperimentSpec, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """launch/submit.py of that spec, as a process of its own."""
    return lambda *options: launch("submit.py", "spec.json", *options, cwd=tmp_path)


@pytest.mark.parametrize("signal", ["KILL", "HUP", "INT"])
def test_a_submit_that_is_ended_before_it_wrote_the_id_down_is_settled_by_the_next(spec, sbatch, command, signal):
    """SIGKILL, a lost ssh connection, Ctrl-C."""
    sbatch(f'if [ $stage = train ]; then $real "$@"; kill -{signal} $PPID; sleep 1; exit; fi')
    assert command().returncode != 0
    run = RunDir(spec.run_path)
    assert jobs_in_queue(run).keys() == {"preprocess", "train"}
    assert [job.stage for job in run.read_submission().jobs] == ["preprocess"] and run.read_submission().intent
    sbatch("")
    again = command()
    assert again.returncode == 0 and "train had been submitted as job" in again.stderr, again.stderr
    assert_each_once(run)
    cancel_run(run)


@pytest.mark.parametrize("verb", ["monitor", "cancel", "resume"])
def test_every_command_settles_what_a_killed_submit_has_left(spec, sbatch, command, verb):
    sbatch('if [ $stage = train ]; then $real "$@"; kill -KILL $PPID; exit; fi')
    command()
    sbatch("")
    run = RunDir(spec.run_path)
    options = {"monitor": ["--once", "--json"], "cancel": ["--yes"], "resume": []}[verb]
    done = launch(f"{verb}.py", run.path, *options, cwd=run.path.parent)
    assert "Traceback" not in done.stderr and "train had been submitted as job" in done.stderr, done.stderr
    submission = run.read_submission()
    assert submission.intent is None and "train" in submission.latest()
    if verb == "cancel":
        assert done.returncode == 0 and not jobs_in_queue(run)
    else:
        assert jobs_in_queue(run).keys() >= {"preprocess", "train"}
        assert all(len(ids) == 1 for ids in jobs_in_queue(run).values())
        cancel_run(run)


def test_a_job_whose_submitter_was_killed_runs_nevertheless(spec, sbatch, command, slurm):
    """It finds its task without submitit's last step, and knows by its mark that it is meant."""
    sbatch('if [ $stage = preprocess ]; then $real "$@"; kill -KILL $PPID; exit; fi')
    command()
    run = RunDir(spec.run_path)
    [job_id] = jobs_in_queue(run)["preprocess"]
    slurm.run("scontrol", "release", job_id)
    slurm.wait_job(job_id, "COMPLETED", 120)
    assert read_json(run.status / "preprocess.json")["state"] == "done"
    sbatch("")
    assert command().returncode == 0
    assert_each_once(run)
    cancel_run(run)


def test_of_two_submits_at_once_one_does_it_and_the_other_is_told_who_is_at_it(spec, sbatch, command, tmp_path):
    sbatch(f'until [ -e "{tmp_path}/go" ]; do sleep 0.05; done')
    argv = [sys.executable, str(ROOT / "launch/submit.py"), "spec.json"]
    first = subprocess.Popen(argv, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
    run = RunDir(spec.run_path)
    wait_for("the first to be at it", lambda: run.submission.exists() and run.read_submission().intent)
    second = command()
    assert second.returncode == 1, second
    assert re.match(rf"error: another command is submitting {run.path} \(on \S+, process {first.pid}, ", second.stderr)
    (tmp_path / "go").touch()
    assert first.wait(60) == 0
    assert_each_once(run)
    assert "has been submitted before" in command().stdout
    assert not list(run.path.parent.glob(".*.lock*"))
    cancel_run(run)


def test_a_run_that_is_cancelled_while_it_is_submitted_is_taken_back(spec, sbatch):
    run = RunDir(spec.run_path)
    sbatch(f'if [ $stage = generate ]; then echo "{{}}" > {run.cancelled}; fi')
    with pytest.raises(SubmissionError, match="was cancelled while it was being submitted"):
        submit(spec)
    assert not jobs_in_queue(run)


@pytest.fixture
def own_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MiniSlurm]:
    """A Slurm whose controller may be frozen and killed, and whose clients wait 3 s for it."""
    with MiniSlurm(tmp_path / "slurm", {"MessageTimeout": "3"}) as cluster:
        monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
        yield cluster


@pytest.mark.parametrize("how", ["STOP", "KILL"])
def test_a_controller_that_falls_silent_in_the_middle_loses_nothing_and_starts_nothing_twice(
    spec, sbatch, own_slurm, monkeypatch, how
):
    """Frozen it has the job in its line, or not; killed it may have saved it, or not."""
    monkeypatch.setattr(intent, "PATIENCE_S", 1.0)
    pid = own_slurm._children["slurmctld"].pid
    before = f"kill -{how} {pid}; sleep 0.2; " if how == "STOP" else ""
    after = f"kill -{how} {pid}; echo '{LOST_ANSWER}' >&2; exit 1; " if how == "KILL" else ""
    sbatch(f'if [ $stage = train ]; then {before} $real "$@" || exit 1; {after} fi')
    with pytest.raises(UnclearError, match="nobody knows whether Slurm has taken train") as error:
        submit(spec)
    run = RunDir(spec.run_path)
    assert f"{run.path} is kept" in error.value.message and "cancel.py" in error.value.hint
    assert [job.stage for job in run.read_submission().jobs] == ["preprocess"]
    if how == "STOP":
        own_slurm.thaw("slurmctld")
    else:
        own_slurm.kill("slurmctld")
        own_slurm.start("slurmctld")
    sbatch("")
    monkeypatch.setattr(intent, "PATIENCE_S", 60.0)
    wait_for("the controller", lambda: own_slurm.run("squeue", check=False).returncode == 0)
    assert submit(spec).path == run.path
    assert_each_once(run)
