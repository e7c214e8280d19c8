"""Guards that the monitor reads everything and changes nothing, and that it knows what it cannot know: a driver that
lives, one that is gone, one on another machine, and a Slurm that does not answer.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcsft.errors import ClusterError, HpcsftError, RunNotFoundError
from hpcsft.monitor.look import Look, look_at
from hpcsft.monitor.reading.collect import Reader, open_jobs
from hpcsft.monitor.reading.snapshot import NOTHING
from hpcsft.monitor.state.facts import Facts
from hpcsft.monitor.state.run import run_state
from hpcsft.plan import Plan, make_plan
from hpcsft.records import Progress, StageStatus, Submission, SubmittedStage, append_jsonl, now, read_json, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from tests.runs import finished_run


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


def collect(run: RunDir, detailed: bool = True) -> Facts:
    return Reader(run).facts(NOTHING, detailed)


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
        look_at([run])
    state = look_at([run], tolerant=True)[0]
    assert state.as_of is None and state.problem and "squeue does not answer" in state.problem
    assert [stage.state for stage in state.stages] == ["done", *["pending"] * 4]


@pytest.fixture
def squeue(tmp_path, monkeypatch) -> Path:
    """An squeue of our own, which answers as the real one does; tests/cluster asks the real one."""
    program = tmp_path / "squeue"
    lines = [
        "7|N/A|RUNNING|1:02|1:00:00|2026-11-30T10:00:00|2026-11-30T11:00:00|n1|None",
        "8|3|PENDING|0:00|1:00:00|N/A|NONE||Priority",
    ]
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return program


def test_what_squeue_says_reaches_the_state(run, squeue):
    submit(run, "slurm", "7")
    state = look_at([run])[0]
    assert state.problem is None and state.as_of and state.stages[0].state == "running"
    assert (state.stages[0].limit, state.stages[0].nodes) == ("1:00:00", "n1")


def test_a_job_that_was_submitted_after_the_last_answer_is_not_lost(run, squeue):
    """resume submits new jobs while a monitor shows the old answer."""
    submit(run, "slurm", "7")
    look = Look([run])
    look.states()
    look.ask(15)
    submit(run, "slurm", "9")
    assert [stage.state for stage in look.states()[0].stages] == ["pending"] * 5
    look.snapshot.time += 60
    assert look.states()[0].stages[0].state == "failed", "Slurm has been asked since, and does not know it"


def test_jobs_are_open_until_their_tasks_have_told_their_end(run):
    def opened(as_of: float = time.time() + 3600) -> set[str]:
        return open_jobs(collect(run, False).model_copy(update={"as_of": as_of}))

    assert opened() == set()
    submit(run, "slurm", "7")
    assert opened() == {"7"} and opened(as_of=time.time() - 60) == set(), "an older answer cannot hold it"
    plan = Plan.model_validate(read_json(run.plan))
    for stage in plan.stages:
        for index in range(stage.tasks):
            say(run, stage.name, "done", "7", index, stage.tasks)
    assert opened() == set()


def test_many_runs_are_looked_at_without_their_details(run):
    write_json(run.heartbeat / "0.json", {"rank": 0})
    assert collect(run, detailed=False).details is None
    details = collect(run).details
    assert details and details.heartbeats == [{"rank": 0}] and details.retries["timeout"] == 100


def test_the_line_that_decided_is_shown(run, driver):
    job_id = f"local-{driver.pid}"
    submit(run, "local", job_id)
    folder = run.log_folder("train", job_id, 0)
    folder.mkdir(parents=True)
    (folder / "0.err").write_text("noise\nTraceback (most recent call last):\nValueError: it is broken\n")
    status = StageStatus(stage="train", index=0, state="failed", attempt=1, job_id=job_id, message="it is broken")
    log = f"logs/train/{job_id}_0/0.err"
    write_json(run.status_file("train", 0, 1), status.model_copy(update={"log": log}))
    failure = Look([run]).states()[0].stages[1].failure
    assert failure and (failure.log, failure.line_number, failure.line) == (log, 3, "ValueError: it is broken")


def test_a_cancelled_run_says_so(run):
    write_json(run.cancelled, {})
    assert collect(run).cancelled is True


def test_every_task_is_read(run):
    written = [say(run, "generate", "done", "7_0", 0, 2), say(run, "generate", "running", "7_1", 1, 2)]
    written.append(say(run, "train", "done", "7"))
    (run.status / ".train.json.123.tmp").write_text("{")  # being written at this moment
    assert collect(run).statuses == written


def test_looking_changes_nothing(run, driver):
    submit(run, "local", f"local-{driver.pid}")
    say(run, "train", "running", "7")
    append_jsonl(run.metrics, {"step": 1, "loss": 1.0})
    run.checkpoints.mkdir()
    Path(run.checkpoints / "latest").write_text("step-000001\n")
    before = contents(run)
    collect(run)
    assert contents(run) == before


def other_run(spec_values) -> RunDir:
    """Another one beside `run`."""
    return finished_run({**spec_values, "name": "other"})


def test_a_run_that_goes_while_it_is_watched(run, driver, spec_values):
    """Of one alone that is an error; among others it has ended with its last state."""
    submit(run, "local", f"local-{driver.pid}")
    alone, among = Look([run]), Look([run, other_run(spec_values)])
    before = among.states()[0]
    alone.states()
    shutil.rmtree(run.path)
    with pytest.raises(RunNotFoundError, match="no run here any more"):
        alone.states()
    gone, other = among.states()
    assert gone.gone and gone.finished and gone.stages == before.stages and "no run here any more" in gone.lost
    assert other.state == "done" and not other.lost


@pytest.mark.parametrize("name", ["plan", "submission", "status"])
@pytest.mark.parametrize("text", ["{", "[]", '{"stage": 1}'])
def test_a_damaged_file_is_named_and_stops_no_other_run(run, driver, spec_values, name, text):
    submit(run, "local", f"local-{driver.pid}")
    say(run, "train", "running", "7")
    path = {"plan": run.plan, "submission": run.submission, "status": run.status / "train.json"}[name]
    watched = Look([run])
    before = watched.states()[0]
    path.write_text(text)
    with pytest.raises(HpcsftError, match=f"{path.name} is not understood"):
        Look([run]).states()
    bad, other = Look([run, other_run(spec_values)]).states()
    assert f"{path.name} is not understood" in bad.lost and bad.stages == [] and other.state == "done"
    assert watched.states()[0].stages == before.stages, "who has seen it before sees what it saw"


def test_a_filesystem_that_hiccups_ends_nothing(run, driver, monkeypatch):
    submit(run, "local", f"local-{driver.pid}")
    look = Look([run])
    before = look.states()[0]
    with monkeypatch.context() as patch:
        stale = OSError(errno.ESTALE, "Stale file handle", str(run.plan))
        patch.setattr(Reader, "facts", lambda *_: (_ for _ in ()).throw(stale))
        state = look.states()[0]
    assert state.stages == before.stages and "Stale file handle" in state.lost and not state.finished
    assert look.states()[0].lost is None


def test_what_a_run_used_is_read_once_for_an_end(run, monkeypatch):
    submit(run, "local", "local-4194304")  # a driver that is gone
    say(run, "train", "running", "local-4194304")
    calls = []
    monkeypatch.setattr("hpcsft.monitor.look.usage_of", lambda run: calls.append(run))
    look = Look([run])
    assert [look.states()[0].state for _ in range(3)] == ["failed"] * 3 and len(calls) == 1
    append_jsonl(run.metrics, {"step": 1, "loss": 1.0})
    look.states()
    assert len(calls) == 2


def test_rows_that_nobody_understands_take_the_screen_from_nobody(run):
    submit(run, "local", "local-4194304")
    say(run, "train", "running", "local-4194304")
    odd = {"event": 5, "time": "x", "job_id": "local-4194304", "restart": 0}
    append_jsonl(run.attempts / "train.jsonl", {"event": 5, "time": "x"}, odd)
    assert (Look([run]).states()[0].state, Look([run]).states()[0].usage) == ("failed", None)


def test_messages_are_one_line_and_change_no_terminal(run):
    status = StageStatus(
        stage="train", index=0, state="failed", attempt=1, job_id="7", message="a\x1b[2Jb\nc", hint="\x1b]0;x\x07d"
    )
    write_json(run.status_file("train", 0, 1), status)
    said = collect(run).statuses[0]
    assert "\x1b" not in said.message + said.hint and "\n" not in said.message and said.hint.endswith("d")


def test_heartbeats_of_many_ranks_are_not_read_at_every_look(run):
    reader = Reader(run)
    write_json(run.heartbeat / "0.json", {"rank": 0})
    reader.facts(NOTHING, True)
    write_json(run.heartbeat / "1.json", {"rank": 1})
    assert len(reader.facts(NOTHING, True).details.heartbeats) == 1
    reader._next_beats_s = 0.0
    assert len(reader.facts(NOTHING, True).details.heartbeats) == 2


def test_a_task_that_says_another_state_is_news_and_its_progress_is_none(run, driver):
    submit(run, "local", f"local-{driver.pid}")
    status = say(run, "train", "running", "7")
    look = Look([run])
    look.states()
    assert not look.news
    further = status.model_copy(update={"progress": Progress(done=1, total=2, unit="steps")})
    write_json(run.status_file("train", 0, 1), further)
    look.states()
    assert not look.news
    say(run, "train", "stopped", "7")
    look.states()
    assert look.news
    look.states()
    assert not look.news


def test_a_stage_by_hand_that_ends_while_it_is_looked_at_is_done_and_not_lost(run, monkeypatch):
    say(run, "judge", "running", "hand-4194304")

    def gone(statuses: list[StageStatus]) -> list[str]:
        say(run, "judge", "done", "hand-4194304")  # its last word, between the two looks
        return ["hand-4194304"]

    monkeypatch.setattr("hpcsft.monitor.reading.collect.hands_off", gone)
    assert [status.state for status in collect(run).statuses] == ["done"]
