"""Guards the live screen in a real pseudo terminal: keys, sizes, ends, and a terminal that is given back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from hpcsft.plan import Plan, make_plan
from hpcsft.records import StageStatus, Submission, append_jsonl, read_json, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from tests.launch.command import ROOT
from tests.monitor.terminal import Terminal, run_in_pipe
from tests.runs import JOB_ID, finished_run, set_status


@pytest.fixture
def plan(spec_values) -> Plan:
    return make_plan(parse_spec(spec_values))


@pytest.fixture
def run(spec_values, plan):
    """A run in training on this machine, with a driver that does nothing."""
    run = finished_run(spec_values)
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as driver:
        assert driver.stdout and driver.stdout.readline() == b"up\n"
        submission = run.read_submission()
        jobs = [job.model_copy(update={"job_id": f"local-{driver.pid}"}) for job in submission.jobs]
        run.write_submission(Submission(cluster="local", host=submission.host, jobs=jobs))
        for file in run.status.glob("*.json"):
            if not file.name.startswith("preprocess"):
                file.unlink()
        train(run, f"local-{driver.pid}", 5)
        yield run
        driver.kill()


def train(run: RunDir, job_id: str, step: int) -> None:
    """Rank 0 of training says that it is at `step`."""
    status = StageStatus(
        stage="train", index=0, state="running", attempt=1, job_id=job_id, started="2026-11-30T10:00:00+00:00",
        updated="2026-11-30T10:00:00+00:00", progress={"done": step, "total": 100, "unit": "steps"},
    )  # fmt: skip
    write_json(run.status_file("train", 0, 1), status)
    folder = run.log_folder("train", job_id, 0)
    folder.mkdir(parents=True, exist_ok=True)
    for rank in (0, 1):
        with open(folder / f"{rank}.out", "a") as file:
            file.write(f"rank {rank} says step {step}\n")
        (folder / f"{rank}.err").write_text(f"warning of rank {rank}\n")
    values = {"lr": 0.1, "tokens": 10, "tokens_per_s": 5.0, "time": "2026-11-30T10:00:00+00:00"}
    append_jsonl(run.metrics, {"step": step, "epoch": 0.1, "loss": 2.0, **values})


def job_of(run: RunDir) -> str:
    return run.read_submission().jobs[-1].job_id


def test_a_run_on_the_screen_follows_the_run_directory(run, tmp_path):
    with Terminal.monitor(run.path, cwd=tmp_path) as terminal:
        terminal.wait_for(run.path.name, "train", "5/100 steps", "rank 0 says step 5", "q quit, jobs go on")
        train(run, job_of(run), 42)
        terminal.wait_for("42/100 steps", "rank 0 says step 42")
        terminal.press("q")
        assert terminal.end() == 101
    left = terminal.text()
    assert "42/100 steps" in left and left.rstrip().endswith("left; the jobs go on"), "it stays on the terminal"


def test_keys(run, tmp_path):
    with Terminal.monitor(run.path, cwd=tmp_path) as terminal:
        terminal.wait_for("rank 0 says step 5", "rank 0 of 2")
        terminal.press("r")
        terminal.wait_for("rank 1 says step 5", "rank 1 of 2")
        terminal.press("e")
        terminal.wait_for("warning of rank 1", "1.err")
        terminal.press("?")
        terminal.wait_for("cancel the run; asks first", without="warning of rank 1")
        terminal.press("x")
        terminal.wait_for("warning of rank 1")
        terminal.press("\r")
        terminal.wait_for("esc back", without="preprocess")
        terminal.press(b"\x1b")
        terminal.wait_for("preprocess")
        terminal.press(b"\x1b[A")
        terminal.wait_for("▸ preprocess")
        terminal.press("\x03")
        assert terminal.end() == 101


def test_a_log_is_not_scrolled_beyond_its_beginning(run, tmp_path):
    for step in range(6, 12):
        train(run, job_of(run), step)
    with Terminal.monitor(run.path, cwd=tmp_path) as terminal:
        terminal.wait_for("rank 0 says step 11")
        for _ in range(5):
            terminal.press(b"\x1b[5~")
            terminal.wait_for("6 lines back", without="says step 11")
        terminal.press(b"\x1b[6~")
        terminal.wait_for("rank 0 says step 11", without="lines back")
        terminal.press("q")
        assert terminal.end() == 101


def test_cancelling_asks_and_does_it(run, tmp_path):
    with Terminal.monitor(run.path, cwd=tmp_path) as terminal:
        terminal.wait_for("5/100 steps")
        terminal.press("c")
        terminal.wait_for("cancel tiny-", "any other key: no")
        terminal.press("n")
        terminal.wait_for("q quit")
        assert not run.cancelled.exists()
        terminal.press("cy")
        terminal.wait_for("go on later with hpcsft resume")
        assert run.cancelled.exists()
        terminal.wait_for("  cancelled")
        terminal.press("q")
        assert terminal.end() == 103


@pytest.mark.parametrize(("columns", "rows"), [(60, 24), (250, 60), (33, 6)])
def test_any_size_and_a_change_of_it(run, tmp_path, columns, rows):
    with Terminal.monitor(run.path, cwd=tmp_path) as terminal:
        terminal.wait_for("5/100 steps", "q quit")
        terminal.resize(columns, rows)
        terminal.wait(lambda text: "q quit" in text.splitlines()[-1], f"the keys in the last line of {columns}x{rows}")
        terminal.press("q")
        assert terminal.end() == 101


def test_the_terminal_is_given_back(run, tmp_path):
    """The other screen, the cursor, the title: also when it is killed with SIGTERM."""
    for end, code in (("q", 101), (signal.SIGTERM, 143)):
        with Terminal.monitor(run.path, cwd=tmp_path) as terminal:
            terminal.wait_for("5/100 steps")
            terminal.press(end) if isinstance(end, str) else os.kill(terminal.pid, end)
            assert terminal.end() == code
        for begin, back in (
            (b"\x1b[?1049h", b"\x1b[?1049l"),
            (b"\x1b[?25l", b"\x1b[?25h"),
            (b"\x1b[22;0t", b"\x1b[23;0t"),
        ):
            assert terminal.sent.rfind(begin) < terminal.sent.rfind(back), (end, begin)
        assert f"{run.path.name}: running train 5%".encode() in terminal.sent, "the title of the window"


def test_a_run_that_ends_stays_on_the_screen(run, plan, tmp_path):
    with Terminal.monitor(run.path, cwd=tmp_path) as terminal:
        terminal.wait_for("5/100 steps", "jobs go on")
        for stage in plan.stages:
            for index in range(stage.tasks):
                set_status(run, plan, stage.name, index, "done")
        terminal.wait_for("done", without="jobs go on")
        terminal.press("q")
        assert terminal.end() == 0


def test_several_runs_are_a_table_to_open(run, spec_values, tmp_path):
    other = finished_run({**spec_values, "name": "other"})
    with Terminal.monitor(run.path, other.path, cwd=tmp_path) as terminal:
        terminal.wait_for("2 runs", "1 done", "1 running", "train 5%", other.path.name)
        terminal.press("j\r")
        terminal.wait_for(f"{other.path.name}  done", "esc back")
        terminal.press(b"\x1b[D")
        terminal.wait_for("2 runs")
        terminal.press("q")
        assert terminal.end() == 101


@pytest.mark.parametrize("env", [{"ACCESSIBLE": "1"}, {"TERM": "dumb"}])
def test_lines_for_who_cannot_use_a_screen(run, tmp_path, env):
    with Terminal.monitor(run.path, cwd=tmp_path, env=env) as terminal:
        terminal.wait_for("train: running (5/100 steps", "run: running")
        terminal.press("\x03")
        terminal.wait_for("interrupted; jobs that were submitted go on")
        assert terminal.end() == 130
    assert b"\x1b[" not in terminal.sent


def test_no_color_is_respected(run, tmp_path):
    with Terminal.monitor(run.path, cwd=tmp_path, env={"NO_COLOR": "1"}) as terminal:
        terminal.wait_for("5/100 steps")
        terminal.press("q")
        terminal.end()
    assert b"\x1b[36m" not in terminal.sent


def test_a_pipe_gets_lines_as_things_change(run, plan, tmp_path):
    with run_in_pipe(run.path, cwd=tmp_path) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(6)]
        assert "train: running (5/100 steps" in lines[1] and lines[5].endswith("run: running\n")
        train(run, job_of(run), 55)
        assert "train: running (55/100 steps" in process.stdout.readline()
        for stage in plan.stages:
            for index in range(stage.tasks):
                set_status(run, plan, stage.name, index, "done")
        rest = process.stdout.read()
        assert rest.endswith("run: done\n") and "judge: done" in rest and process.wait() == 0


def test_a_pipe_that_is_left_leaves_the_jobs(run, tmp_path):
    with run_in_pipe(run.path, "--json", cwd=tmp_path) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline().startswith('{"schema_version":1,"time":')
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr.read() == "interrupted; jobs that were submitted go on\n"


def test_a_run_that_has_ended_long_ago_is_shown_all_the_same(spec_values, tmp_path):
    run = finished_run(spec_values)
    assert run.read_submission().jobs[0].job_id == JOB_ID
    with Terminal.monitor(run.path, cwd=tmp_path) as terminal:
        terminal.wait_for("done", "q quit")
        terminal.press("q")
        assert terminal.end() == 0


def test_the_first_screen_needs_no_heavy_import(run, tmp_path):
    """What makes it slow is what it imports: nothing of the training, no submitit, no asyncio."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import hpcsft.monitor.app, hpcsft.monitor.screen.live; "
    code += "print([name for name in ('submitit', 'asyncio', 'torch', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("display", ["live", "plain"])
def test_who_sees_a_run_end_tells_it_where_no_job_could(run, tmp_path, display):
    """The driver was killed, so nobody has run the command of `notify`; and the end is told once."""
    spec = read_json(run.spec)
    write_json(run.spec, {**spec, "notify": {"command": ["touch", str(tmp_path / "told-{state}")]}})
    with Terminal.monitor(run.path, "--display", display, cwd=tmp_path) as terminal:
        terminal.wait_for("5/100 steps")
        status = StageStatus(stage="train", index=0, state="failed", attempt=1, job_id=job_of(run), message="nan")
        write_json(run.status_file("train", 0, 1), status)
        terminal.wait_for("failed", "notified: ")
        if display == "live":
            terminal.press("q")
        assert terminal.end() == 100
    assert (tmp_path / "told-failed").exists() and len(list(run.notified.iterdir())) == 1


def test_without_keys_there_is_no_screen(run, tmp_path):
    """Standard input that is no terminal, or closed: lines, as in a pipe."""
    for stdin in ("</dev/null", "<&-"):
        command = f"exec {sys.executable} {ROOT}/launch/monitor.py {run.path} {stdin}"
        code = f"import os; os.execv('/bin/sh', ['sh', '-c', {command!r}])"
        with Terminal("-c", code, cwd=tmp_path) as terminal:
            terminal.wait_for("train: running (5/100 steps", "run: running")
