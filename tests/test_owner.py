"""Guards whose queue is asked: ids of jobs mean others on another cluster, and other people's jobs are not among one's
own. On the real Slurm, with a run that says it was submitted elsewhere, and one of another user.
"""

from __future__ import annotations

import os
import pwd

import pytest

from hpcsft.cluster.held import refuse_if_held
from hpcsft.cluster.resume import resume_run
from hpcsft.cluster.submit import cancel_run
from hpcsft.errors import ClusterError, SubmissionError
from hpcsft.logs.ending import Ending
from hpcsft.monitor.look import look_at
from hpcsft.owner import Owner, ThisCluster, parse_cluster, refuse_elsewhere, this_cluster, this_user, why_unseen
from hpcsft.records import Submission, SubmittedStage, read_json, write_json
from hpcsft.rundir import RunDir
from tests.attempt.made import empty_run
from tests.cluster.minislurm import MiniSlurm

CONFIG = """Configuration data as of 2026-11-30T10:00:00
AccountingStorageTRES   = cpu,mem,energy,node
ClusterName             = big
PrivateData             = {private}
SLURM_VERSION           = 22.05.8
"""


def test_the_cluster_in_its_configuration():
    assert parse_cluster(CONFIG.format(private="none")) == ThisCluster("big", "22.05.8", False)
    assert parse_cluster(CONFIG.format(private="accounts,jobs,usage")).hides_jobs
    assert not parse_cluster(CONFIG.format(private="accounts,usage")).hides_jobs
    with pytest.raises(ClusterError, match="scontrol show config names no cluster"):
        parse_cluster("welcome\n")


def test_who_this_is():
    assert this_user() == pwd.getpwuid(os.getuid()).pw_name


def test_what_slurm_here_can_tell(monkeypatch):
    here, hiding = ThisCluster("big"), ThisCluster("big", hides_jobs=True)
    assert why_unseen(Owner("big", this_user()), here) is None
    assert why_unseen(Owner("big", "somebody"), here) is None
    assert why_unseen(Owner("small", this_user()), here) == "submitted on cluster small; this is big"
    assert why_unseen(Owner("small", this_user()), None) is None, "nobody knows"
    assert why_unseen(Owner(None, None), hiding) is None, "submitted by an older version"
    monkeypatch.setattr(os, "getuid", lambda: 1)
    assert why_unseen(Owner("big", this_user()), hiding) is None
    assert why_unseen(Owner("big", "me"), hiding) == "submitted by me; cluster big shows you your own jobs only"
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert why_unseen(Owner("big", "me"), hiding) is None, "root sees everything"


def test_a_submission_of_an_older_version_is_read():
    old = Submission.model_validate({"cluster": "slurm", "host": "login", "jobs": []})
    assert Owner.of(old) == Owner(None, None)


def test_where_slurm_does_not_answer_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    submission = Submission(cluster="slurm", host="login", cluster_name="small")
    refuse_elsewhere(RunDir(tmp_path), submission)
    refuse_elsewhere(RunDir(tmp_path), None)


@pytest.fixture
def job(slurm: MiniSlurm):
    """A job that waits, of the user nobody."""
    job_id = slurm.submit("sleep 60", "--hold", "--uid=nobody")
    yield job_id
    slurm.run("scancel", job_id)


def submitted(run: RunDir, job_id: str, cluster_name: str, user: str) -> RunDir:
    jobs = [SubmittedStage(stage="preprocess", job_id=job_id, depends_on=[], tasks=1, submitted="2026-11-30T10:00:00Z")]
    owner = {"cluster_name": cluster_name, "user": user}
    run.write_submission(Submission(cluster="slurm", host="login", jobs=jobs, **owner))
    return run


@pytest.mark.slurm
def test_the_run_of_another_user_is_asked_for_by_name(slurm, tmp_path, job):
    run = submitted(empty_run(tmp_path), job, this_cluster().name, "nobody")
    [state] = look_at([run])
    assert (state.stages[0].state, state.unseen, state.problem) == ("pending", None, None) and state.as_of
    [mine] = look_at([submitted(empty_run(tmp_path / "mine"), job, this_cluster().name, this_user())])
    assert mine.stages[0].state == "failed", "it is no job of ours"


@pytest.mark.slurm
def test_a_run_of_another_cluster_is_told_from_its_files(slurm, tmp_path, job):
    run = submitted(empty_run(tmp_path), job, "elsewhere", "nobody")
    [state] = look_at([run])
    here = this_cluster().name
    assert state.unseen == f"submitted on cluster elsewhere; this is {here}" and state.as_of is None
    assert state.stages[0].state == "pending" and state.problem is None
    again = look_at([run, submitted(empty_run(tmp_path / "b"), job, here, "nobody")])
    assert [each.unseen is None for each in again] == [False, True]


@pytest.mark.slurm
def test_a_run_of_another_cluster_is_neither_cancelled_nor_resumed(slurm, tmp_path, job):
    run = submitted(empty_run(tmp_path), job, "elsewhere", this_user())
    for refused in (lambda: cancel_run(run), lambda: resume_run(run, ["preprocess"])):
        with pytest.raises(SubmissionError, match=r"submitted on cluster elsewhere; this is cluster \w+") as caught:
            refused()
        assert caught.value.hint == "go to a login node of elsewhere; nothing was changed"
    assert not run.cancelled.exists() and slurm.job(job)["JobState"] == "PENDING"
    refuse_if_held(run, "preprocess")
    ending = Ending(run, "preprocess", 0)
    assert ending.look(quiet_s=1000) == (None, False)


@pytest.mark.slurm
def test_an_answer_without_the_clusters_name_is_asked_again(slurm, tmp_path, job):
    """An older version, or a monitor of old runs, has left it in the cache."""
    run = submitted(empty_run(tmp_path), job, "elsewhere", this_user())
    look_at([run], max_age_s=0)
    [cache] = run.queue_cache.glob("*.json")
    write_json(cache, {**read_json(cache), "here": None})
    [state] = look_at([run], max_age_s=1000)
    assert state.unseen
