"""Without Slurm: the same stages in the background of this machine, through submitit's local executor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcsft.cluster.local import driver_alive
from hpcsft.records import read_json, read_jsonl
from hpcsft.rundir import RunDir
from tests.launch.command import ROOT, environment, launch

TIMEOUT_S = 180


@pytest.fixture
def spec(spec_values: dict[str, Any], tmp_path: Path) -> Path:
    (tmp_path / "spec.json").write_text(json.dumps(spec_values))
    return tmp_path / "spec.json"


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


def submit(spec: Path, *overrides: str) -> RunDir:
    sets = [word for override in overrides for word in ("--set", override)]
    done = launch("submit.py", spec, *sets, "--json", cwd=spec.parent)
    assert done.returncode == 0, done.stderr
    return RunDir(json.loads(done.stdout)["run_dir"])


def monitor(run: RunDir) -> tuple[int, dict[str, Any]]:
    done = launch("monitor.py", run.path, "--once", "--json", cwd=run.path)
    return done.returncode, json.loads(done.stdout)


def driver(run: RunDir) -> tuple[str, str]:
    submission = run.read_submission()
    return submission.jobs[-1].job_id, submission.host


def steps(run: RunDir) -> int:
    return max((row["step"] for row in read_jsonl(run.metrics)), default=0)


def test_submit_returns_at_once_and_the_stages_go_on_to_the_table(spec: Path) -> None:
    run = submit(spec, "cluster.env.GREETING=hello there", 'cluster.setup=["export FROM_SETUP=$GREETING"]')
    code, document = monitor(run)
    assert code == 101 and document["state"] in ("pending", "running")
    done = launch("submit.py", spec, "--set", "cluster.env.GREETING=hello there",
                  "--set", 'cluster.setup=["export FROM_SETUP=$GREETING"]', "--watch", cwd=spec.parent)  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "has been submitted before" in done.stdout
    assert "Win rate against the reference on 6 prompts" in done.stdout and "| epoch-2 " in done.stdout
    code, document = monitor(run)
    assert code == 0 and [stage["state"] for stage in document["stages"]] == ["done"] * 5
    assert document["train"]["validation"][0]["checkpoint"] == "base"
    rows = list(read_jsonl(run.attempts))
    assert [row["stage"] for row in rows if row["event"] == "start"] == [
        "preprocess", "train", "generate", "generate", "judge", "report"
    ]  # fmt: skip
    assert sorted(path.name for path in (run.logs / "train").rglob("*.out")) == ["0.out", "1.out"]
    assert len(read_json(run.evaluate / "epoch-1" / "annotations.json")) == 6
    assert not driver_alive(run, *driver(run))


def test_ctrl_c_leaves_the_run_alone(spec: Path) -> None:
    command = [sys.executable, str(ROOT / "launch/submit.py"), str(spec), "--watch", "--set", "evaluate=null"]
    watching = subprocess.Popen(
        command, cwd=spec.parent, env=environment(), start_new_session=True, text=True, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    run = RunDir(wait_for("the submission", lambda: next(spec.parent.glob("runs/*/submission.json"), None)).parent)
    wait_for("the first stage", lambda: list(run.status.glob("preprocess.json")))
    os.killpg(watching.pid, signal.SIGINT)  # what a terminal sends to everything in its foreground
    _, error = watching.communicate(timeout=TIMEOUT_S)
    assert watching.returncode == 130 and "jobs that were submitted go on" in error
    assert wait_for("the end of the run", lambda: monitor(run)[0] != 101 and monitor(run)[1])["state"] == "done"


def test_a_cancelled_run_ends_with_all_its_processes_and_goes_on_when_resumed(spec: Path) -> None:
    run = submit(spec, "evaluate=null", "train.epochs=60")
    wait_for("some steps", lambda: steps(run) >= 5)
    cancelled = launch("cancel.py", run.path, "--yes", cwd=run.path)
    assert cancelled.returncode == 0
    processes = subprocess.run(["pgrep", "-f", str(run.path)], capture_output=True, text=True).stdout.split()
    assert processes == []
    assert monitor(run)[0] == 103
    reached = steps(run)
    resumed = launch("resume.py", run.path, cwd=run.path)
    assert resumed.returncode == 0, resumed.stderr
    assert wait_for("the end of the run", lambda: monitor(run)[0] != 101 and monitor(run)[1])["state"] == "done"
    events = [(row["stage"], row["attempt"]) for row in read_jsonl(run.attempts) if row["event"] == "start"]
    assert events == [("preprocess", 1), ("train", 1), ("train", 2), ("report", 1)]
    numbers = [row["step"] for row in read_jsonl(run.metrics)]
    assert numbers == list(range(1, numbers[-1] + 1)) and numbers[-1] > reached


def test_a_driver_that_dies_is_noticed(spec: Path) -> None:
    run = submit(spec, "evaluate=null", "train.epochs=60")
    wait_for("some steps", lambda: steps(run) >= 2)
    os.killpg(int(driver(run)[0].removeprefix("local-")), signal.SIGKILL)
    wait_for("the end of the driver", lambda: not driver_alive(run, *driver(run)))
    code, document = monitor(run)
    assert code == 100
    assert [stage["state"] for stage in document["stages"]] == ["done", "failed", "cancelled"]
    assert "the job ended without a word" in document["stages"][1]["message"]


def test_a_stage_that_fails_stops_the_run_with_its_message(spec: Path) -> None:
    done = launch("submit.py", spec, "--set", "data.max_length=16", "--set", "data.overlong=drop", "--watch",
                  cwd=spec.parent)  # fmt: skip
    assert done.returncode == 100
    assert "preprocess: failed" in done.stdout and "no training row is left" in done.stdout
    run = RunDir(next(spec.parent.glob("runs/*")))
    assert [stage["state"] for stage in monitor(run)[1]["stages"]] == ["failed"] + ["cancelled"] * 4


def test_a_driver_of_another_machine_is_not_judged(tmp_path: Path) -> None:
    assert driver_alive(RunDir(tmp_path), "local-1", "some-other-host") is None
