"""Guards that nobody judges by hand what the queue or the driver will judge: one of the two would be fenced off."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hpcsft.cluster.held import jobs_in_queue, refuse_if_held, report_waits_for
from hpcsft.cluster.submit import cancel_run
from hpcsft.errors import StageError
from hpcsft.records import StageStatus, Submission, SubmittedStage, write_json
from hpcsft.rundir import RunDir
from hpcsft.slurm_client import cancel_jobs
from tests.attempt.made import empty_run
from tests.cluster.minislurm import MiniSlurm
from tests.conftest import make_spec_values
from tests.prepared import new_run


def submitted(run: RunDir, cluster: str, job_id: str) -> RunDir:
    jobs = [SubmittedStage(stage="judge", job_id=job_id, depends_on=[], tasks=1, submitted="")]
    run.write_submission(Submission(cluster=cluster, host=socket.gethostname(), jobs=jobs))
    return run


def test_a_run_that_nobody_submitted_is_free(tmp_path):
    refuse_if_held(empty_run(tmp_path), "judge")


def test_a_driver_that_has_gone_holds_nothing(tmp_path):
    refuse_if_held(submitted(empty_run(tmp_path), "local", "local-1"), "judge")


def test_where_no_slurm_answers_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    refuse_if_held(submitted(empty_run(tmp_path), "slurm", "12"), "judge")


def test_the_driver_of_this_machine_holds_it_until_it_has_said_that_it_waits(tmp_path):
    run = empty_run(tmp_path)
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        driver.stdout.readline()
        job_id = f"local-{driver.pid}"
        submitted(run, "local", job_id)
        with pytest.raises(StageError, match=rf"judge is still in the hands of job {job_id} \(driver\)") as caught:
            refuse_if_held(run, "judge")
        assert str(run.path) in caught.value.hint
        waiting = StageStatus(stage="judge", index=0, state="waiting", attempt=1, job_id=job_id)
        write_json(run.status_file("judge", 0, 1), waiting)
        refuse_if_held(run, "judge")
        driver.stdin.close()


def test_the_report_of_a_judge_by_hand_waits_for_benchmarks_that_are_not_done(tmp_path):
    values = make_spec_values(Path("/models/tiny"), Path("/data/a.jsonl"), Path("/data/p.json"), tmp_path / "runs")
    run = new_run({**values, "benchmark": {"tasks": ["t"]}})
    assert sorted(report_waits_for(run)) == ["benchmark", "judge"]
    for stage, tasks in (("judge", 1), ("benchmark", 3)):
        for index in range(tasks):
            assert stage in report_waits_for(run)
            done = StageStatus(stage=stage, index=index, state="done", attempt=1, job_id="12")
            write_json(run.status_file(stage, index, tasks), done)
    assert report_waits_for(run) == []


@pytest.mark.slurm
def test_a_job_of_something_else_that_got_an_id_of_this_run_is_left_alone(slurm: MiniSlurm, spec_values):
    """Slurm begins to count anew when a site sets it up again."""
    spec_values["cluster"] = {"kind": "slurm"}
    run = new_run(spec_values)
    ours = slurm.submit("sleep 60", "--hold", f"--comment=hpcsft:{run.path.name}:train:0a1b2c3d")
    theirs = slurm.submit("sleep 60", "--hold", "--job-name=something")
    named = slurm.submit("sleep 60", "--hold", "--job-name=tiny.judge", "--comment=rewritten by the site")
    of_another_run = slurm.submit("sleep 60", "--hold", "--job-name=tiny.report", "--comment=hpcsft:tiny-0:report:1")
    ids = {"train": ours, "generate": theirs, "judge": named, "report": of_another_run}
    jobs = [SubmittedStage(stage=stage, job_id=ids[stage], depends_on=[], tasks=1, submitted="") for stage in ids]
    run.write_submission(Submission(cluster="slurm", host=socket.gethostname(), jobs=jobs))
    assert jobs_in_queue(run, ["train", "generate"]) == [ours]
    assert sorted(cancel_run(run)) == sorted([ours, named])
    states = {name: slurm.job(job_id)["JobState"] for name, job_id in ids.items()}
    assert states == {"train": "CANCELLED", "generate": "PENDING", "judge": "CANCELLED", "report": "PENDING"}
    cancel_jobs([theirs, of_another_run])
