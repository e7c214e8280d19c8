"""Guards that the monitor reads everything and changes nothing, and that it knows what it cannot know: a driver that
lives, one that is gone, one on another machine, and a Slurm that does not answer.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hpcsft.errors import ClusterError
from hpcsft.monitor.collect import TAIL_STEPS, collect, train_facts
from hpcsft.monitor.state import run_state
from hpcsft.plan import Plan, make_plan
from hpcsft.records import StageStatus, Submission, SubmittedStage, append_jsonl, now, read_json, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec


@pytest.fixture
def run(spec_values) -> RunDir:
    """A run directory with a plan and nothing else."""
    spec = parse_spec(spec_values)
    run = RunDir(spec.run_path)
    run.create()
    write_json(run.plan, make_plan(spec))
    write_json(run.spec, spec)
    return run


def submit(run: RunDir, cluster: str, job_id: str, host: str | None = None) -> None:
    stages = Plan.model_validate(read_json(run.plan)).stages
    jobs = [
        SubmittedStage(stage=stage.name, job_id=job_id, depends_on=[], tasks=stage.tasks, submitted=now())
        for stage in stages
    ]
    run.write_submission(Submission(cluster=cluster, host=host or socket.gethostname(), jobs=jobs))


def say(run: RunDir, stage: str, state: str, job_id: str, index: int = 0, tasks: int = 1) -> StageStatus:
    status = StageStatus(stage=stage, index=index, state=state, attempt=1, job_id=job_id)
    write_json(run.status_file(stage, index, tasks), status)
    return status


def contents(run: RunDir) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in run.path.rglob("*")}


def test_before_anything_was_submitted(run):
    before = contents(run)
    facts = collect(run)
    assert (facts.submitted, facts.statuses, facts.queue, facts.driver_alive) == ({}, [], None, None)
    assert (facts.train, facts.cancelled, facts.problem) == ({}, False, None)
    assert facts.plan == Plan.model_validate(read_json(run.plan)) and facts.run_dir == str(run.path)
    assert contents(run) == before


@pytest.fixture
def driver(run) -> subprocess.Popen[bytes]:
    """A process that looks like the driver of `run`: its path is among the arguments."""
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.readline() == b"up\n"
        yield process
        process.kill()


def test_a_driver_is_alive_until_it_ends(run, driver):
    submit(run, "local", f"local-{driver.pid}")
    status = say(run, "preprocess", "running", f"local-{driver.pid}")
    facts = collect(run)
    assert (facts.driver_alive, facts.queue, facts.statuses) == (True, None, [status])
    assert list(facts.submitted) == facts.plan.stage_names
    assert [stage.state for stage in run_state(facts).stages] == ["running", *["pending"] * 4]
    driver.kill()
    driver.wait()
    facts = collect(run)
    assert facts.driver_alive is False
    assert [stage.state for stage in run_state(facts).stages] == ["failed", *["cancelled"] * 4]


def test_another_process_with_the_drivers_number_is_not_the_driver(run, tmp_path, driver, spec_values):
    """Process numbers come around; after a reboot the old one may be anybody's."""
    submit(run, "local", f"local-{os.getpid()}")
    assert collect(run).driver_alive is False


def test_a_driver_on_another_machine_is_not_known(run, driver):
    submit(run, "local", f"local-{driver.pid}", host="another-login-node")
    say(run, "preprocess", "running", f"local-{driver.pid}")
    facts = collect(run)
    assert facts.driver_alive is None
    assert run_state(facts).state == "running"


def test_a_slurm_that_does_not_answer(run, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no squeue here
    submit(run, "slurm", "7")
    say(run, "preprocess", "done", "7")
    with pytest.raises(ClusterError, match="squeue does not answer"):
        collect(run)
    facts = collect(run, tolerant=True)
    assert facts.queue is None and facts.problem and "squeue does not answer" in facts.problem
    assert [stage.state for stage in run_state(facts).stages] == ["done", *["pending"] * 4]


def test_what_squeue_says_reaches_the_state(run, monkeypatch, tmp_path):
    """An squeue of our own, which answers as the real one does; tests/cluster asks the real one."""
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho '7|N/A|RUNNING|1:02|1:00:00|None'\necho '8|3|PENDING|0:00|1:00:00|Priority'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    submit(run, "slurm", "7")
    facts = collect(run)
    assert facts.queue is not None and facts.problem is None
    assert [(entry.job_id, entry.index, entry.state) for entry in facts.queue] == [
        ("7", 0, "RUNNING"),
        ("8", 3, "PENDING"),
    ]
    assert run_state(facts).stages[0].state == "running"


def test_a_cancelled_run_says_so(run):
    write_json(run.cancelled, {})
    assert collect(run).cancelled is True


def test_every_task_is_read(run):
    written = [say(run, "generate", "done", "7_0", 0, 2), say(run, "generate", "running", "7_1", 1, 2)]
    written.append(say(run, "train", "done", "7"))
    (run.status / ".train.json.123.tmp").write_text("{")  # being written at this moment
    assert collect(run).statuses == written


def test_the_facts_of_training(run):
    assert train_facts(run) == {}
    for step in range(1, 101):
        append_jsonl(run.metrics, {"step": step, "loss": 1 / step, "lr": 0.1})
    with open(run.metrics, "a") as file:
        file.write('{"step": 101, "lo')  # being written at this moment
    append_jsonl(run.validation, {"checkpoint": "base", "epoch": 0, "loss": 3.0, "time": "now"})
    facts = train_facts(run)
    assert (facts["step"], facts["loss"], facts["lr"]) == (100, 0.01, 0.1)
    assert facts["losses"] == [1 / step for step in range(101 - TAIL_STEPS, 101)]
    assert facts["validation"] == [{"checkpoint": "base", "loss": 3.0}]
    assert "checkpoint" not in facts
    run.checkpoints.mkdir()
    (run.checkpoints / "latest").write_text("step-000100\n")
    assert train_facts(run)["checkpoint"] == "step-000100"


def test_the_base_model_may_be_validated_before_the_first_step(run):
    append_jsonl(run.validation, {"checkpoint": "base", "epoch": 0, "loss": 3.0})
    assert train_facts(run) == {"losses": [], "validation": [{"checkpoint": "base", "loss": 3.0}]}


def test_a_step_that_was_passed_over_has_no_loss_to_draw(run):
    for step, loss in enumerate((3.0, None, 2.0, None), start=1):
        append_jsonl(run.metrics, {"step": step, "loss": loss})
    facts = train_facts(run)
    assert facts["loss"] is None and facts["losses"] == [3.0, 2.0]


def test_looking_changes_nothing(run, driver):
    submit(run, "local", f"local-{driver.pid}")
    say(run, "train", "running", "7")
    append_jsonl(run.metrics, {"step": 1, "loss": 1.0})
    run.checkpoints.mkdir()
    Path(run.checkpoints / "latest").write_text("step-000001\n")
    before = contents(run)
    collect(run)
    assert contents(run) == before
