"""Without Slurm: the same stages in the background of this machine, through submitit's local executor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcsft.cluster.local import driver_alive
from hpcsft.records import read_json, read_jsonl
from hpcsft.rundir import RunDir
from tests import prepared, waiting
from tests.launch.command import ROOT, environment, launch

TIMEOUT_S = 180


@pytest.fixture
def spec(spec_values: dict[str, Any], tmp_path: Path) -> Path:
    (tmp_path / "spec.json").write_text(json.dumps(spec_values))
    return tmp_path / "spec.json"


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    return waiting.wait_for(what, condition, TIMEOUT_S)


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


def attempts(run: RunDir, task: str) -> list[int]:
    """Numbers of the attempts that have started."""
    return [row["attempt"] for row in read_jsonl(run.attempts / f"{task}.jsonl") if row["event"] == "start"]


def ends(run: RunDir, task: str) -> list[str]:
    """Why attempts ended that were not the last."""
    return [row["cause"] for row in read_jsonl(run.attempts / f"{task}.jsonl") if row["event"] == "end"]


def test_submit_returns_at_once_and_the_stages_go_on_to_the_table(spec: Path) -> None:
    run = submit(spec, "cluster.env.GREETING=hello there", 'cluster.setup=["export FROM_SETUP=$GREETING"]')
    code, document = monitor(run)
    assert code == 101 and document["state"] in ("pending", "running")
    done = launch("submit.py", spec, "--set", "cluster.env.GREETING=hello there",
                  "--set", 'cluster.setup=["export FROM_SETUP=$GREETING"]', "--watch", cwd=spec.parent,
                  timeout_s=TIMEOUT_S)  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "has been submitted before" in done.stdout
    assert "Win rate against corpus on 6 prompts" in done.stdout and "\nepoch-2 " in done.stdout
    code, document = monitor(run)
    assert code == 0 and [stage["state"] for stage in document["stages"]] == ["done"] * 5
    assert document["train"]["validation"][0]["checkpoint"] == "base"
    assert {file.stem: attempts(run, file.stem) for file in run.attempts.glob("*.jsonl")} == {
        name: [1] for name in ("preprocess", "train", "generate-0", "generate-1", "judge", "report")
    }
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
    assert [attempts(run, stage) for stage in ("preprocess", "train", "report")] == [[1], [1, 2], [1]]
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
                  cwd=spec.parent, timeout_s=TIMEOUT_S)  # fmt: skip
    assert done.returncode == 100
    assert "preprocess: failed" in done.stdout and "no training row is left" in done.stdout
    run = RunDir(next(spec.parent.glob("runs/tiny-*")))
    assert [stage["state"] for stage in monitor(run)[1]["stages"]] == ["failed"] + ["cancelled"] * 4


def test_a_driver_of_another_machine_is_not_judged(tmp_path: Path) -> None:
    assert driver_alive(RunDir(tmp_path), "local-1", "some-other-host") is None


def test_a_rank_that_is_killed_is_replaced_and_no_step_is_missing(spec: Path) -> None:
    run = submit(spec, "evaluate=null", "data.sample=60", "cluster.retries.rank_failure=1")
    wait_for("some steps", lambda: steps(run) >= 3)
    os.kill(read_json(run.heartbeat / "1.json")["pid"], signal.SIGKILL)
    document = wait_for("the end of the run", lambda: monitor(run)[0] != 101 and monitor(run)[1])
    assert [stage["state"] for stage in document["stages"]] == ["done"] * 3
    assert (attempts(run, "train"), ends(run, "train")) == ([1, 2], ["rank_failure"])
    numbers = [row["step"] for row in read_jsonl(run.metrics)]
    assert numbers == list(range(1, numbers[-1] + 1))


SCRIPT = """
import os, signal, sys, time
sys.path[0] = {code!r}
{head}
from hpcsft.stage import run_stage

def body(context):
    (context.run.path / f"pid-{{context.attempt}}").write_text(str(os.getpid()))
    {body}

run_stage("report", body)
"""


def started(
    values: dict[str, Any], body: str, head: str = "", **retries: int
) -> tuple[RunDir, subprocess.Popen[bytes]]:
    """A run whose stage `report` is `body`, and the driver that has begun with it."""
    values["cluster"]["retries"] = retries
    run = prepared.new_run(values)
    (run.code / "jobs" / "report.py").write_text(SCRIPT.format(code=str(run.code), head=head, body=body))
    command = [sys.executable, "-m", "hpcsft.cluster.local", str(run.path), "report"]
    return run, subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)


def driven(values: dict[str, Any], body: str, head: str = "", **retries: int) -> RunDir:
    """The same after the driver has ended."""
    run, process = started(values, body, head, **retries)
    assert process.wait(TIMEOUT_S) == (run.read_status("report", 0, 1).state != "done")
    return run


def test_a_process_that_dies_is_tried_again_within_its_budget(spec_values: dict[str, Any]) -> None:
    body = "context.attempt < {} and os.kill(os.getpid(), signal.SIGKILL)"
    run = driven(spec_values, body.format(3), rank_failure=2)
    assert (run.read_status("report", 0, 1).state, attempts(run, "report")) == ("done", [1, 2, 3])
    assert ends(run, "report") == ["rank_failure"] * 2
    spec_values["runs_dir"] += "-again"
    run = driven(spec_values, body.format(9), rank_failure=1)
    status = run.read_status("report", 0, 1)
    assert (status.state, attempts(run, "report")) == ("failed", [1, 2])
    assert status.message == "a rank died (2 times; cluster.retries.rank_failure is 1)"


@pytest.mark.parametrize(
    ("body", "head"),
    [("raise ValueError('no such column')", ""), ("pass", "raise ImportError('no torch here')")],
    ids=["in the body", "before the stage begins"],
)
def test_a_code_error_is_not_tried_again(spec_values: dict[str, Any], body: str, head: str) -> None:
    run = driven(spec_values, body, head)
    status = run.read_status("report", 0, 1)
    assert (status.state, ends(run, "report")) == ("failed", ["code"])
    assert attempts(run, "report") == ([] if head else [1])
    assert status.message == ("ValueError: no such column" if not head else status.message)


def test_a_process_that_is_told_to_stop_keeps_its_work_and_goes_on(spec_values: dict[str, Any]) -> None:
    body = """
    while context.attempt == 1:
        context.progress(3, 7, "pages")
        context.stop_if_asked()
        time.sleep(0.01)
"""
    run, process = started(spec_values, body.strip())
    pid = wait_for("the stage", lambda: list(run.path.glob("pid-1")) and (run.path / "pid-1").read_text())
    wait_for("some work", lambda: run.read_status("report", 0, 1).progress)
    os.kill(int(pid), signal.SIGTERM)
    assert process.wait(TIMEOUT_S) == 0
    assert (run.read_status("report", 0, 1).state, attempts(run, "report")) == ("done", [1, 2])
    rows = list(read_jsonl(run.attempts / "report.jsonl"))
    assert [row["event"] for row in rows] == ["start", "notice", "stopped", "end", "start", "done"]
    assert (rows[3]["cause"], rows[3]["progressed"], rows[3]["status"]) == ("signal", True, 0)
