"""A job whose environment cannot be made says why where the monitor looks, once, and only as the newest attempt."""

from __future__ import annotations

import pytest

from hpcsft.attempt.environment_failed import main
from hpcsft.errors import Fenced
from tests.attempt.made import NO_SLURM, empty_run, events, fence, journal

MESSAGE = "cluster.modules: the module cuda/9 does not load (on n7)"


@pytest.fixture
def run(tmp_path, monkeypatch):
    for name, value in {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "44", "PATH": NO_SLURM}.items():
        monkeypatch.setenv(name, value)
    return empty_run(tmp_path)


def test_it_is_told_and_never_tried_again(run):
    assert main([str(run.path), "train", MESSAGE]) == 1
    status = run.read_status("train", 0, 1)
    assert (status.state, status.message) == ("failed", MESSAGE)
    assert status.hint.startswith("mend it there, or change cluster.modules: python launch/resume.py")
    assert events(run) == ["failed", "end"]


def test_the_task_of_an_array_tells_of_itself(run, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "40")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert main([str(run.path), "generate", MESSAGE]) == 1
    assert run.read_status("generate", 1, 2).job_id == "40_1" and run.read_status("generate", 0, 2) is None


def test_a_requeued_job_takes_the_task_over(run, monkeypatch):
    fence(run, restart=0).claim()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main([str(run.path), "train", MESSAGE]) == 1
    assert run.read_status("train", 0, 1).restart == 1


def test_an_attempt_that_was_taken_over_writes_nothing(run):
    fence(run, restart=1).claim()
    with pytest.raises(Fenced, match="44_0 is not the newest any more"):
        main([str(run.path), "train", MESSAGE])
    assert events(run) == [] and journal(run).rows() == []
