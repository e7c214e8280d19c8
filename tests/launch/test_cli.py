"""The other commands and the console script: exit codes that scripts can trust, and errors without tracebacks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcsft.console import USAGE, VERBS, main
from hpcsft.monitor import look
from hpcsft.plan import make_plan
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from hpcsft.spec import load_spec, parse_spec
from tests.launch.command import ROOT, TIMEOUT_S, environment, launch
from tests.runs import finished_run, set_status

SPECS = sorted((ROOT / "launch" / "specs").glob("*.json"))


@pytest.fixture
def run(spec_values) -> RunDir:
    return finished_run(spec_values)


def monitor(run: RunDir, *arguments: str) -> subprocess.CompletedProcess[str]:
    return launch("monitor.py", run.path, "--once", *arguments, cwd=run.path)


def test_monitor_tells_the_state_as_one_document(run):
    done = monitor(run, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert document["run_dir"] == str(run.path)
    assert document["state"] == "done"
    assert [stage["name"] for stage in document["stages"]] == ["preprocess", "train", "generate", "judge", "report"]
    contract = {"name", "state", "job_ids", "restarts", "progress", "message", "log"}
    assert all(stage.keys() >= contract for stage in document["stages"])


def test_monitor_tells_the_state_to_people(run):
    done = monitor(run)
    assert (done.returncode, done.stderr) == (0, "")
    assert run.path.name in done.stdout and "generate" in done.stdout


@pytest.mark.parametrize(("state", "code"), [("done", 0), ("failed", 100), ("cancelled", 103), ("unsubmitted", 101)])
def test_monitor_exits_with_the_state(state, code, run, spec_values):
    plan = make_plan(parse_spec(spec_values))
    if state == "failed":
        set_status(run, plan, "judge", 0, "failed", "the endpoint refused the key")
    elif state != "done":
        shutil.rmtree(run.status)
        run.status.mkdir()
        run.cancelled.write_text("{}") if state == "cancelled" else run.submission.unlink()
    done = monitor(run, "--json")
    assert (done.returncode, done.stderr) == (code, "")
    assert json.loads(done.stdout)["state"] == state
    if state == "failed":
        assert "the endpoint refused the key" in monitor(run).stdout


def test_monitor_of_several_runs_exits_with_the_worst(run, spec_values):
    spec_values["name"] = "other"
    other = finished_run(spec_values)
    set_status(other, make_plan(parse_spec(spec_values)), "train", 0, "failed", "NaN")
    done = launch("monitor.py", run.path, other.path, "--once", cwd=run.path)
    assert done.returncode == 100
    assert run.path.name in done.stdout and other.path.name in done.stdout


@pytest.mark.parametrize("script", ["monitor.py", "logs.py", "cancel.py", "resume.py", "clean.py", "runs.py"])
def test_a_folder_that_is_no_run(script, tmp_path):
    done = launch(script, tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (102, "")
    assert done.stderr.splitlines() == [
        f"error: {tmp_path}: no run here",
        "hint: a run directory is what submit printed: RUNS_DIR/NAME-HASH, with a spec.json inside",
    ]


def test_monitor_without_a_name_takes_the_newest_run(spec_values, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    done = launch("monitor.py", "--once", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (102, "")
    assert done.stderr.splitlines() == ["error: no run in runs/", "hint: name a run directory"]
    older = finished_run(spec_values)
    newer = finished_run({**spec_values, "seed": 8})
    os.utime(older.submission, (1, 1))
    done = launch("monitor.py", "--once", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["run_dir"] == str(newer.path)


def test_monitor_json_is_a_line_for_each_change(run):
    done = launch("monitor.py", run.path, "--json", cwd=run.path)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and {event["schema_version"] for event in events} == {1}
    assert [event["event"] for event in events] == ["stage"] * 5 + ["run"] and events[-1]["text"] == "run: done"


def test_monitor_json_of_several_runs_is_one_document(run, spec_values):
    other = finished_run({**spec_values, "name": "other"})
    done = launch("monitor.py", run.path, other.path, "--once", "--json", cwd=run.path)
    document = json.loads(done.stdout)
    assert [one["run_dir"] for one in document["runs"]] == [str(run.path), str(other.path)]
    assert document["schema_version"] == 1


def test_monitor_of_a_folder_is_of_all_its_runs(run, spec_values):
    finished_run({**spec_values, "name": "other"})
    done = launch("monitor.py", run.path.parent, "--once", cwd=run.path)
    assert done.returncode == 0 and "other-" in done.stdout and run.path.name in done.stdout


def write_log(run: RunDir, stage: str, job_id: str, rank: int, out: str, err: str = "", mtime_s: int = 1) -> None:
    folder = run.log_folder(stage, job_id, 0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{rank}.out").write_text(out)
    (folder / f"{rank}.err").write_text(err)
    os.utime(folder, (mtime_s, mtime_s))


def test_logs_are_of_the_newest_attempt(run):
    write_log(run, "train", "7", 0, "old\n", mtime_s=1)
    write_log(run, "train", "8", 0, "new\n", "a warning\n", mtime_s=2)
    write_log(run, "train", "8", 1, "rank one\n", mtime_s=2)
    write_log(run, "judge", "9", 0, "judged\n", mtime_s=3)
    assert launch("logs.py", run.path, cwd=run.path).stdout == "judged\n"
    assert launch("logs.py", run.path, "train", cwd=run.path).stdout == "new\na warning\n"
    assert launch("logs.py", run.path, "train", "--rank", "1", cwd=run.path).stdout == "rank one\n"


def test_logs_that_are_not_there(run):
    done = launch("logs.py", run.path, cwd=run.path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: no log of any stage\nhint: no stage has started yet\n"
    write_log(run, "train", "8", 0, "x\n")
    done = launch("logs.py", run.path, "judge", cwd=run.path)
    assert (done.returncode, done.stderr) == (1, "error: no log of judge\nhint: stages with logs: train\n")
    done = launch("logs.py", run.path, "train", "--rank", "3", cwd=run.path)
    assert (done.returncode, done.stderr) == (1, "error: logs/train/8_0 has no rank 3\nhint: ranks: 0\n")


def test_a_run_that_has_ended_is_neither_cancelled_nor_resumed(run):
    before = run.submission.read_bytes()
    done = launch("cancel.py", run.path, "--yes", cwd=run.path)
    assert (done.returncode, done.stderr) == (0, "") and "nothing to cancel" in done.stdout
    done = launch("resume.py", run.path, cwd=run.path)
    assert (done.returncode, done.stderr) == (0, "") and "nothing to resume" in done.stdout
    assert not run.cancelled.exists() and run.submission.read_bytes() == before


def test_a_cancelled_run_that_has_not_ended_yet_is_not_said_to_have_been_resumed(run, monkeypatch, capsys):
    """Its jobs are seen in the queue for some seconds after scancel."""
    run.cancelled.write_text("{}")
    monkeypatch.setattr(look, "look_at", lambda *_, **__: [SimpleNamespace(state="running", stages=[])])
    assert main(["resume", str(run.path)]) == 1
    assert "was cancelled, but its jobs have not ended yet" in capsys.readouterr().err
    assert run.cancelled.exists()


def test_cancel_asks_first_and_takes_no_for_an_answer(run, spec_values):
    run.submission.unlink()
    set_status(run, make_plan(parse_spec(spec_values)), "report", 0, "running")  # started by hand
    command = [sys.executable, str(ROOT / "launch" / "cancel.py"), str(run.path)]
    done = subprocess.run(command, input="\n", capture_output=True, text=True, env=environment(), timeout=TIMEOUT_S)
    assert done.returncode == 1 and "left alone" in done.stdout
    assert not run.cancelled.exists()


def test_console_usage(capsys):
    assert main(["--help"]) == 0
    assert main([]) == 2
    assert capsys.readouterr().out == f"{USAGE}\n" * 2
    assert all(f"\n  {verb} " in USAGE for verb in (*VERBS, "schema", "completion"))


def test_console_refuses_an_unknown_verb(capsys):
    assert main(["sbumit", "spec.json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: no verb 'sbumit'\nhint: did you mean submit?\n") and USAGE in err


@pytest.mark.parametrize(("redirect", "code"), [("| true", 0), (">/dev/full", 1)])
@pytest.mark.parametrize("words", ["--help", "schema"])
def test_an_output_that_takes_nothing_is_no_traceback(words, redirect, code, tmp_path):
    command = f"set -o pipefail; {sys.executable} -m hpcsft.console {words} {redirect}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment() | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert "Traceback" not in done.stderr and done.returncode == code
    assert code == 0 or done.stderr.startswith("error: cannot write to the standard output: No space left")


def test_console_prints_the_schema(capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["properties"]["seed"]["default"] == 42
    assert schema["required"] == ["model", "data"]


@pytest.mark.parametrize("verb", VERBS)
def test_console_has_the_scripts_of_launch_as_verbs(verb, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    before = sys.path[:]
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert "usage: " in capsys.readouterr().out
    assert sys.path == before, "the scripts put the checkout on the path, which is no affair of the caller's"


def test_every_script_of_launch_is_a_verb():
    assert set(VERBS) == {path.stem for path in (ROOT / "launch").glob("*.py")}


def test_console_prints_what_a_shell_evaluates(capsys):
    assert main(["completion", "bash"]) == 0
    assert "complete " in capsys.readouterr().out
    assert main(["completion"]) == 1
    assert capsys.readouterr().err.startswith("error: hpcsft completion bash|zsh|fish; given nothing\n")


def test_console_reports_errors_like_the_scripts(tmp_path, capsys):
    assert main(["monitor", "--once", str(tmp_path)]) == 102
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: no run here\n")
    assert main(["submit", str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_console_without_its_checkout(tmp_path):
    """Installed without -e there is no launch/ and no jobs/ beside the package."""
    shutil.copytree(ROOT / "hpcsft", tmp_path / "hpcsft", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; from hpcsft.console import main; sys.exit(main(['submit', 'spec.json']))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=TIMEOUT_S
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"error: no jobs/ beside hpcsft/ in {tmp_path}",
        "hint: install hpcsft from its checkout: pip install -e .",
    ]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_a_ready_spec_loads_and_plans(path):
    """Also after a change of the schema: these are the files that people start from."""
    spec = load_spec(str(path))
    plan = make_plan(spec)
    assert plan.name == path.stem, "a run is called like the file that it came from"
    assert plan.batch.accumulation_steps >= 1
    assert read_json(path).keys() <= type(spec).model_fields.keys()


def test_there_are_ready_specs():
    assert Path("quickstart.json").name in [path.name for path in SPECS]
