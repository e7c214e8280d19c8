"""A run directory that is moved or deleted under its jobs: they end plainly, and nothing is made anew in its place."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcsft.attempt.after_srun import script
from hpcsft.cluster import local
from hpcsft.errors import EXIT_NO_RUN, RunNotFoundError
from hpcsft.rundir import RunDir
from tests.cluster.minislurm import MiniSlurm
from tests.launch.command import launch
from tests.waiting import wait_for

GONE = (
    r"error: the run directory \S+ is gone: moved or deleted\nhint: if it was moved, python launch/resume.py NEW_PLACE"
)


@pytest.fixture
def long_run(spec_values: dict[str, Any], tmp_path: Path) -> Callable[..., RunDir]:
    """Submit a training of some minutes, on this cluster, and wait until it makes steps."""

    def submitted(**cluster: Any) -> RunDir:
        spec_values["train"]["epochs"] = 200
        spec_values["cluster"] = {"time": "00:10:00", "cpus_per_task": 1, **cluster}
        (tmp_path / "spec.json").write_text(json.dumps({**spec_values, "evaluate": None}))
        done = launch("submit.py", "spec.json", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        run = RunDir(json.loads(done.stdout)["run_dir"])
        wait_for("steps", lambda: run.metrics.exists() and run.metrics.stat().st_size > 0, 120)
        return run

    return submitted


def resume(run: RunDir) -> str:
    """What resume has submitted; empty while the run counts as running: its last word may be on its way."""
    done = launch("resume.py", run.path, cwd=run.path)
    assert done.returncode == 0, done.stderr
    return "" if "nothing to resume" in done.stdout else done.stdout


@pytest.mark.slurm
def test_jobs_of_a_moved_run_end_plainly_and_it_goes_on_at_its_new_place(long_run, slurm: MiniSlurm):
    run = long_run(kind="slurm", partition="low", train={"nodes": 2, "tasks_per_node": 1})
    job_id = run.read_submission().latest()["train"].job_id
    moved = RunDir(run.path.rename(run.path.with_name("moved")))
    assert slurm.wait_job(job_id, "FAILED")["Restarts"] == "0"
    assert not run.path.exists()
    for rank in (0, 1):
        log = (moved.log_folder("train", job_id, 0) / f"{rank}.err").read_text()
        assert re.search(GONE, log) and "Traceback" not in log, log
    launcher = next((moved.submitit / "train").glob(f"{job_id}_0_log.err")).read_text()
    assert re.search(GONE, launcher) and "Traceback" not in launcher, launcher
    resumed = wait_for("the end to be believed", lambda: resume(moved), 90)
    again = moved.read_submission().latest()["train"].job_id
    assert f"train          job {again}" in resumed
    wait_for("it to go on", lambda: "resumed" in (moved.attempts / "train.jsonl").read_text().splitlines()[-1], 120)
    last = RunDir(moved.path.rename(moved.path.with_name("again")))
    assert launch("cancel.py", last.path, "--yes", cwd=last.path).returncode == 0
    assert slurm.wait_job(again, ("CANCELLED", "FAILED"))


def test_the_driver_of_a_moved_run_ends_plainly(long_run):
    run = long_run(kind="local", train={"tasks_per_node": 1})
    submission = run.read_submission()
    job_id = submission.jobs[0].job_id
    moved = RunDir(run.path.rename(run.path.with_name("moved")))
    wait_for("the driver's end", lambda: not local.driver_alive(run, job_id, submission.host), 60)
    log = (moved.logs / "driver.log").read_text()
    assert re.search(GONE, log) and "Traceback" not in log, log
    assert not run.path.exists()


def test_a_moved_run_of_this_machine_is_cancelled_at_its_new_place(long_run):
    run = long_run(kind="local", train={"tasks_per_node": 1})
    submission = run.read_submission()
    moved = run.path.rename(run.path.with_name("moved"))
    assert launch("cancel.py", moved, "--yes", cwd=moved.parent).returncode == 0
    assert not local.driver_alive(run, submission.jobs[0].job_id, submission.host)
    assert not local._members(str(run.path), int(submission.jobs[0].job_id.removeprefix("local-")))


def test_the_end_of_a_batch_script_whose_run_was_deleted(tmp_path):
    with pytest.raises(RunNotFoundError, match="is gone: moved or deleted") as error:
        script([str(tmp_path / "run"), "train", "1"])
    assert error.value.exit_code == EXIT_NO_RUN


@pytest.mark.slurm
def test_jobs_of_a_deleted_run_end_and_are_not_requeued(long_run, slurm: MiniSlurm):
    run = long_run(kind="slurm", partition="low", train={"nodes": 1, "tasks_per_node": 2})
    job_id = run.read_submission().latest()["train"].job_id
    run.path.rename(run.path.with_name("doomed"))
    shutil.rmtree(run.path.with_name("doomed"))
    assert slurm.wait_job(job_id, "FAILED")["Restarts"] == "0"
    assert not run.path.exists()
