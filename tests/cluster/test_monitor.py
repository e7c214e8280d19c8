"""The console on a real Slurm: what a person sees while jobs wait, run, are preempted, come back, fail, are cancelled,
while the controller is down, and which exit code each leaves. Those of runs that are done or wait: test_slurm.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcsft.rundir import RunDir
from tests.cluster.minislurm import MiniSlurm
from tests.launch.command import launch
from tests.monitor.terminal import Terminal

pytestmark = pytest.mark.slurm


@pytest.fixture
def submit(spec_values: dict[str, Any], tmp_path: Path) -> Callable[..., RunDir]:
    """Submit the tiny spec over 2 nodes x 1 task to the partition low, with `--set` overrides."""
    spec_values["cluster"] = {
        "kind": "slurm",
        "partition": "low",
        "time": "00:10:00",
        "cpus_per_task": 1,
        "train": {"nodes": 2, "tasks_per_node": 1},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec_values))

    def run(*overrides: str) -> RunDir:
        sets = [word for override in overrides for word in ("--set", override)]
        done = launch("submit.py", "spec.json", *sets, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return RunDir(json.loads(done.stdout)["run_dir"])

    return run


def test_a_run_that_is_preempted_and_comes_back(
    slurm: MiniSlurm, submit: Callable[..., RunDir], tmp_path: Path
) -> None:
    """On one screen, up to the cancel by a key."""
    run = submit("evaluate=null", "train.epochs=400")
    with Terminal.monitor(run.path, cwd=tmp_path, columns=120, rows=40) as terminal:
        terminal.wait_for("preprocess", "pending", "Slurm as of")
        terminal.wait_for("of 10:00", "left, done about", "tokens/s", "checkpoint  step-", "published step-")
        urgent = slurm.submit("sleep 600", "--partition=high", "--nodes=4", "--exclusive")
        terminal.press("u")
        terminal.wait_for("train       pending", "preempted, step", "is kept")
        terminal.press("u")
        terminal.wait_for("waiting: ")
        slurm.run("scancel", urgent)
        slurm.requeue_now(run.read_submission().latest()["train"].job_id)
        terminal.wait_for("train       running", "1 restart", "began again once (preempted)")
        terminal.press("\r")
        terminal.wait_for("attempt", "kept step", "on n")
        terminal.press("cy")
        terminal.wait_for("go on later with hpcsft resume", f"{run.path.name}  cancelled")
        terminal.press("q")
        assert terminal.end() == 103


def test_a_failure_is_named_with_its_line(slurm: MiniSlurm, submit: Callable[..., RunDir], tmp_path: Path) -> None:
    run = submit("data.max_length=16", "data.overlong=drop")
    with Terminal.monitor(run.path, cwd=tmp_path, columns=120, rows=40) as terminal:
        terminal.wait_for("preprocess failed: ", "no training row is left", "log: logs/preprocess/", "hint: ")
        terminal.press("q")
        assert terminal.end() == 100
    document = json.loads(launch("monitor.py", run.path, "--once", "--json", cwd=tmp_path).stdout)
    failure = document["stages"][0]["failure"]
    assert failure["kind"] == "data" and "no training row is left" in failure["line"] + failure["title"]
    assert document["usage"]["stages"][0]["stage"] == "preprocess"
    by_job = launch("monitor.py", document["stages"][0]["job_ids"][0], "--once", cwd=tmp_path)
    assert by_job.returncode == 100 and run.path.name in by_job.stdout


def test_a_line_of_the_setup_that_fails_is_named(
    slurm: MiniSlurm, submit: Callable[..., RunDir], tmp_path: Path
) -> None:
    run = submit(
        'cluster.setup=["echo Lmod has detected the following error: no cuda/99 >&2; exit 3"]', "evaluate=null"
    )
    with Terminal.monitor(run.path, cwd=tmp_path, columns=120, rows=40) as terminal:
        terminal.wait_for("preprocess failed: ", "Lmod has detected", "_log.err")
        terminal.press("q")
        assert terminal.end() == 100


def test_while_the_controller_is_down_the_last_answer_stays_with_its_time(
    submit: Callable[..., RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MiniSlurm(tmp_path / "slurm") as cluster:
        monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
        cluster.run("scontrol", "update", "NodeName=n1,n2,n3,n4", "State=DRAIN", "Reason=test")
        run = submit("evaluate=null")
        with Terminal.monitor(run.path, cwd=tmp_path, columns=120, rows=40) as terminal:
            terminal.wait_for("Slurm as of", "preprocess  pending")
            cluster.stop("slurmctld")
            terminal.press("u")
            terminal.wait_for("Slurm does not answer, as of ", "squeue failed", "preprocess  pending")
            once = launch("monitor.py", run.path, "--once", cwd=tmp_path)
            assert once.returncode == 3 and once.stderr.startswith("error: squeue failed")
            cluster.start("slurmctld")
            cluster.wait_for("the controller", lambda: cluster.run("squeue", check=False).returncode == 0, 60)
            terminal.press("u")
            terminal.wait_for("Slurm as of", without="does not answer")
            terminal.press("q")
            assert terminal.end() == 101


def test_two_monitors_ask_once(slurm: MiniSlurm, submit: Callable[..., RunDir], tmp_path: Path) -> None:
    """The second finds the first one's answer, and so does every `--once` of the next seconds."""
    run = submit("evaluate=null", 'cluster.sbatch={"hold": true}')
    answers = lambda: [path.read_text() for path in run.queue_cache.glob("*.json")]  # noqa: E731
    with Terminal.monitor(run.path, cwd=tmp_path) as first:
        first.wait_for("held by you")
        before = answers()
        with Terminal.monitor(run.path, cwd=tmp_path) as second:
            second.wait_for("held by you")
            assert len(before) == 1 and answers() == before
            for terminal in (first, second):
                terminal.press("q")
                assert terminal.end() == 101
    launch("cancel.py", run.path, "--yes", cwd=tmp_path)
    assert launch("monitor.py", "999999", "--once", cwd=tmp_path).returncode == 102, "no such job, nor a run of it"
