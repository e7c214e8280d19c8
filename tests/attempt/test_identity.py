"""What an attempt knows about its surroundings from its own job id."""

from __future__ import annotations

import os

import pytest

from hpcsft.attempt.identity import TaskIdentity
from tests.attempt.made import token


@pytest.mark.parametrize(
    ("job_id", "in_slurm", "by_hand"),
    [("44", True, False), ("44_2", True, False), ("local-9", False, False), ("local-9_1", False, False),
     ("hand-9", False, True)],
)  # fmt: skip
def test_who_knows_the_job_and_who_starts_it_again(job_id, in_slurm, by_hand):
    task = TaskIdentity(job_id, 3, 0, 0, 1)
    assert (task.token.in_slurm, task.by_hand, task.token) == (in_slurm, by_hand, token(job_id, 3))
    assert str(task.token) == f"{job_id}_3"


def test_the_local_drivers_count_of_restarts_is_read(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "SUBMITIT_")):
            monkeypatch.delenv(name)
    local = {"SUBMITIT_EXECUTOR": "local", "HPCSFT_JOB_ID": "local-9_1", "HPCSFT_RESTART": "2",
             "SUBMITIT_LOCAL_GLOBALID": "1", "SUBMITIT_LOCAL_LOCALID": "1", "SUBMITIT_LOCAL_NTASKS": "2"}  # fmt: skip
    for name, value in local.items():
        monkeypatch.setenv(name, value)
    assert TaskIdentity.from_environment() == TaskIdentity("local-9_1", 2, 1, 1, 2)
