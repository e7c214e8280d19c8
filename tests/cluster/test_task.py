"""The first seconds of a task, under submitit itself: no signal is lost, or taken by submitit's own handlers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission

from hpcsft.cluster.task import StageTask
from hpcsft.records import write_json
from hpcsft.rundir import RunDir
from tests.launch.command import ROOT, environment

LISTENING = """
import json, os, signal
from hpcsft.attempt.notice import Notice
{before}
with Notice() as notice:
    print(json.dumps(notice.requested), flush=True)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.create()
    write_json(run.spec, {})
    return run


def started(run: RunDir, script: str) -> subprocess.CompletedProcess[str]:
    """The task 0 of a job of one stage, as submitit starts it."""
    (run.code / "jobs").mkdir(parents=True)
    (run.code / "jobs" / "report.py").write_text(script)
    DelayedSubmission(StageTask(str(run.code), str(run.path), "report", "0")).dump(run.submitit / "9_submitted.pkl")
    job = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "9", "SUBMITIT_LOCAL_GLOBALID": "0",
           "SUBMITIT_LOCAL_LOCALID": "0", "SUBMITIT_LOCAL_NTASKS": "1", "HPCSFT_JOB_ID": "local-9",
           "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
    command = [sys.executable, "-m", "submitit.core._submit", str(run.submitit)]
    return subprocess.run(command, cwd=ROOT, env={**environment(), **job}, capture_output=True, text=True, timeout=60)


def said(run: RunDir) -> str:
    """The first line that the stage has printed; submitit adds its own."""
    return (run.log_folder("report", "local-9", 0) / "0.out").read_text().splitlines()[0]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGUSR2"])
def test_a_signal_that_comes_before_the_stage_listens_is_told_when_it_does(run, number):
    """submitit's own handlers would end the task, or requeue it behind our back."""
    done = started(run, LISTENING.format(before=f"os.kill(os.getpid(), signal.{number})"))
    assert (done.returncode, json.loads(said(run))) == (0, number), done.stderr


def test_without_a_signal_nothing_is_told(run):
    done = started(run, LISTENING.format(before=""))
    assert (done.returncode, json.loads(said(run))) == (0, None), done.stderr


def test_what_a_killed_attempt_has_left_half_written_does_not_fail_the_next(run):
    """submitit refuses to write its result beside such a file."""
    run.submitit.mkdir(exist_ok=True)
    (run.submitit / "9_0_result.pkl.save_tmp").write_bytes(b"half")
    done = started(run, "print('it ran')")
    assert (done.returncode, said(run)) == (0, "it ran"), done.stderr
    assert sorted(path.name for path in run.submitit.glob("*result*")) == ["9_0_result.pkl"]


@pytest.mark.parametrize(("leave", "status"), [("0", 0), ("75", 0), ("1", 1), ("76", 1)])
def test_who_was_stopped_has_not_failed(run, leave, status):
    """Slurm would otherwise call a preempted rank the failure of its job."""
    assert started(run, f"raise SystemExit({leave})").returncode == status
