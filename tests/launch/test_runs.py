"""Commands on runs that are named, not spelled out: logs, cancel, resume, runs, clean."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcsft.attempt.fence import Fence
from hpcsft.plan import make_plan
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from hpcsft.train.commit import file_facts, open_staging, publish, staging_folder
from tests.conftest import make_spec_values
from tests.launch.command import ROOT, TIMEOUT_S, empty_path, environment, launch
from tests.logs.made import log, say, submit
from tests.runs import finished_run, set_status


@pytest.fixture
def spec_values(tmp_path: Path) -> dict[str, Any]:
    """As tests/conftest.py's, with inputs that are not there: nothing of them is read."""
    return make_spec_values(Path("/models/tiny"), Path("/data/a.jsonl"), Path("/data/p.json"), tmp_path / "runs")


@pytest.fixture
def run(spec_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A finished run in ./runs, and nothing remembered of other places."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return finished_run(spec_values)


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "launch" / script), *map(str, arguments)]


@pytest.fixture
def driver(run: RunDir, spec_values: dict[str, Any]) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Makes the run one whose training is under way: a process like the driver's, in a group of its own."""
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        code = [sys.executable, "-c", "import time; time.sleep(600)", str(run.path)]
        processes.append(subprocess.Popen(code, start_new_session=True))
        plan = make_plan(parse_spec(spec_values))
        job_id = f"local-{processes[-1].pid}"
        submit(run, cluster="local", **dict.fromkeys(plan.stage_names, job_id))
        for status in list(run.read_statuses()):
            if status.stage != "preprocess":
                run.status_file(status.stage, status.index, plan.stage(status.stage).tasks).unlink()
        say(run, f"train/{job_id}_0", "running")
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def checkpoints(run: RunDir) -> RunDir:
    """The run with checkpoints of 5 and 10 steps."""
    for step in (5, 10):
        staged = staging_folder(run, "1_0", step)
        open_staging(staged)
        (staged / "states.pt").write_bytes(b"x" * 1_000_000)
        fence = Fence.__new__(Fence)
        fence.check = lambda: None  # nobody else is here
        publish(run, staged, 1, 2, {"states.pt": file_facts(staged / "states.pt")}, fence)
    return run


def steps(run: RunDir) -> list[str]:
    return sorted(path.name for path in run.checkpoints.glob("step-*"))


def test_logs_of_a_run_by_its_name_and_of_a_job_by_its_id(run, tmp_path):
    submit(run)
    log(run, "train/12_0", out="trained\n", began_s=1)
    log(run, "generate/13_0_0", out="first\n", began_s=2)
    log(run, "generate/13_1_0", out="second\n", err="warned\n", began_s=3)
    for words, out in {
        ("tiny",): "second\nwarned\n",
        ("12",): "trained\n",
        ("13_0",): "first\n",
        ("13", "--index", "0"): "first\n",
        ("13", "train"): "trained\n",
        ("tiny", "--stream", "err"): "warned\n",
        ("tiny", "--tail", "1", "--stream", "out"): "second\n",
    }.items():
        done = launch("logs.py", *words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, out), (words, done.stderr)
    assert done.stderr == "==> logs/generate/13_1_0/0.out <==\n"


@pytest.mark.parametrize("word", ["--tail=x", "--rank=-1", "--attempt=0", "--attempt=some"])
def test_logs_refuse_what_is_no_number(word, run):
    done = launch("logs.py", run.path, word, cwd=run.path)
    assert done.returncode == 2 and "expected a whole number from" in done.stderr


@pytest.mark.parametrize(("state", "code"), [("done", 0), ("failed", 100), ("waiting", 104)])
def test_following_exits_with_the_state_of_the_stage(state, code, run, tmp_path):
    submit(run)
    log(run, "train/12_0", out="trained\n")
    say(run, "train/12_0", state)
    done = launch("logs.py", "tiny", "train", "--follow", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "trained\n")
    assert done.stderr.splitlines()[-1] == f"train: {state}"


def test_ctrl_c_ends_following_and_nothing_else(run, driver, tmp_path):
    job = driver()
    log(run, f"train/local-{job.pid}_0", out="step 1\n")
    with subprocess.Popen(
        command("logs.py", "tiny", "--follow"), cwd=tmp_path, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "step 1\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130
        assert process.stderr.read().splitlines()[1:] == ["interrupted; jobs that were submitted go on"]
    assert job.poll() is None


def test_cancel_shows_what_it_would_cancel(run, driver, tmp_path):
    job = driver()
    done = launch("cancel.py", "tiny", cwd=tmp_path)
    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["train", "running", "job", f"local-{job.pid}"]
    assert [line[0] for line in lines[1:-1]] == ["generate", "judge", "report"]
    assert lines[-1] == ["left", "alone;", "--yes", "does", "not", "ask"]
    assert job.poll() is None and not run.cancelled.exists()


def test_cancel_by_the_id_of_a_job(run, driver, tmp_path):
    job = driver()
    done = launch("cancel.py", f"local-{job.pid}", "--yes", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"cancelled local-{job.pid}" in done.stdout
    assert job.wait(TIMEOUT_S) in (-signal.SIGTERM, -signal.SIGKILL)  # which comes after five seconds


def test_cancel_while_slurm_is_silent_says_what_the_marker_does(run, spec_values, tmp_path):
    submit(run)
    set_status(run, make_plan(parse_spec(spec_values)), "train", 0, "running")
    done = launch("cancel.py", "tiny", "--yes", cwd=tmp_path, path=empty_path(tmp_path / "bin"))
    assert done.returncode == 3
    assert "squeue does not answer" in done.stderr and "the run is marked as cancelled" in done.stderr
    assert run.cancelled.exists()


def test_resume_by_name(run, tmp_path):
    done = launch("resume.py", "tiny", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and "nothing to resume" in done.stdout


def test_several_runs_of_a_name_are_listed(run, spec_values, tmp_path):
    other = finished_run({**spec_values, "seed": 8})
    for script in ("logs.py", "cancel.py", "resume.py"):
        done = launch(script, "tiny", cwd=tmp_path)
        assert done.returncode == 102 and run.path.name in done.stderr and other.path.name in done.stderr


def test_runs_are_listed(checkpoints, spec_values, tmp_path):
    other = finished_run({**spec_values, "name": "other"})
    set_status(other, make_plan(parse_spec({**spec_values, "name": "other"})), "train", 0, "failed", "NaN")
    os.utime(checkpoints.submission, (1_700_000_000, 1_700_000_000))
    done = launch("runs.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    head, first, second, total = done.stdout.splitlines()
    assert head.split()[:4] == ["run", "state", "submitted", "progress"] and head.endswith("disk")
    assert first.split()[:2] == [other.path.name, "failed"]
    assert second.split()[:3] == [checkpoints.path.name, "done", "2023-11-14"] and second.endswith("2.0 MB")
    assert total.startswith("2 runs, 2.")
    by_size = launch("runs.py", "--sort", "disk", cwd=tmp_path).stdout.splitlines()
    assert by_size[1].startswith(checkpoints.path.name)


def test_the_list_as_a_document(checkpoints, tmp_path):
    done = launch("runs.py", tmp_path / "runs", "--json", cwd="/")
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    [row] = document["runs"]
    assert (row["name"], row["run_dir"], row["state"]) == (checkpoints.path.name, str(checkpoints.path), "done")
    assert (
        row["disk"]["total_bytes"] > row["disk"]["checkpoints_bytes"] > 2_000_000
        and document["total_bytes"] > 2_000_000
    )
    quick = json.loads(launch("runs.py", "--no-disk", "--json", cwd=tmp_path).stdout)
    assert quick["runs"][0]["disk"] is None and quick["total_bytes"] is None


def test_a_run_that_cannot_be_read_does_not_hide_the_others(run, spec_values, tmp_path):
    other = finished_run({**spec_values, "name": "other"})
    other.plan.write_text('{"of": "another version"}')
    rows = json.loads(launch("runs.py", "--json", cwd=tmp_path).stdout)["runs"]
    assert {row["name"]: row["state"] for row in rows} == {run.path.name: "done", other.path.name: "unreadable"}


def test_no_runs_are_an_empty_list(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert json.loads(launch("runs.py", "--json", cwd=tmp_path).stdout)["runs"] == []
    assert launch("runs.py", cwd=tmp_path).stdout == "0 runs, 0 B\n"


def test_clean_asks_for_a_yes(checkpoints, tmp_path):
    done = launch("clean.py", "tiny", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout.endswith("left alone; --yes does not ask\n")
    shown = launch("clean.py", "tiny", "--dry-run", cwd=tmp_path)
    assert shown.returncode == 0 and "remove  step-000010, step-000005" in shown.stdout
    assert steps(checkpoints) == ["step-000005", "step-000010"]
    done = launch("clean.py", "tiny", "--keep", "1", "--yes", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.endswith("freed 1.0 MB\n")
    assert steps(checkpoints) == ["step-000010"]
    assert launch("clean.py", "tiny", "--yes", cwd=tmp_path).stdout.endswith("freed 1.0 MB\n")
    assert launch("clean.py", "tiny", "--yes", cwd=tmp_path).stdout == "nothing to remove\n"


def test_clean_asks_at_a_terminal(checkpoints, tmp_path):
    own, theirs = pty.openpty()
    with subprocess.Popen(
        command("clean.py", "tiny"), cwd=tmp_path, env=environment(), stdin=theirs, stdout=subprocess.PIPE, text=True
    ) as process:
        os.write(own, b"y\n")
        out, _ = process.communicate(timeout=TIMEOUT_S)
    os.close(own)
    os.close(theirs)
    assert process.returncode == 0 and "remove these 2.0 MB? [y/N]" in out
    assert steps(checkpoints) == []


def test_clean_leaves_a_training_that_runs_alone_and_does_the_others(checkpoints, driver, spec_values, tmp_path):
    driver()
    other = finished_run({**spec_values, "name": "other"})
    (other.checkpoints / ".staging-1_0").mkdir(parents=True)
    done = launch("clean.py", tmp_path / "runs", "--yes", cwd=tmp_path)
    assert done.returncode == 1
    assert f"error: {checkpoints.path.name}: its training is running" in done.stderr
    assert steps(checkpoints) == ["step-000005", "step-000010"]
    assert list(other.checkpoints.iterdir()) == []


def test_clean_keeps_the_newest_of_a_run_that_may_go_on(checkpoints, spec_values, tmp_path):
    set_status(checkpoints, make_plan(parse_spec(spec_values)), "train", 0, "failed", "NaN")
    done = launch("clean.py", "tiny", "--keep", "0", "--yes", cwd=tmp_path)
    assert done.returncode == 1 and "the newest checkpoint has to stay" in done.stderr
    launch("clean.py", "tiny", "--yes", cwd=tmp_path)
    assert steps(checkpoints) == ["step-000010"]


def test_clean_does_nothing_while_slurm_is_silent(checkpoints, spec_values, tmp_path):
    submit(checkpoints)
    set_status(checkpoints, make_plan(parse_spec(spec_values)), "train", 0, "failed")  # it may have been resumed
    done = launch("clean.py", "tiny", "--yes", cwd=tmp_path, path=empty_path(tmp_path / "bin"))
    assert done.returncode == 3 and len(steps(checkpoints)) == 2


def test_a_finished_run_needs_no_slurm(checkpoints, tmp_path):
    submit(checkpoints)
    done = launch("monitor.py", "tiny", "--once", cwd=tmp_path, path=empty_path(tmp_path / "bin"))
    assert done.returncode == 0 and done.stderr == ""


def test_clean_refuses_a_number_below_zero(checkpoints, tmp_path):
    done = launch("clean.py", "tiny", "--keep", "-1", cwd=tmp_path)
    assert done.returncode == 2 and "--keep is a whole number from 0 on" in done.stderr
