"""The user hears how a run ended from its own jobs, once, on a real Slurm and from the driver of this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcsft.cluster.submit import prepare_run
from hpcsft.notify.announce import deliver_pending
from hpcsft.plan import make_plan
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from hpcsft.slurm_queue import query_queue
from hpcsft.spec import parse_spec
from tests.cluster.minislurm import MiniSlurm
from tests.evaluate.conftest import Endpoint
from tests.launch.command import launch
from tests.waiting import wait_for

VARIABLE = "HPCSFT_TEST_HOOK"
SECRET = "services/" + "x7" * 8
TIMEOUT_S = 180
PROGRAM = "import os, sys; open(sys.argv[1], 'a').write(os.environ['HPCSFT_STATE'] + ' ' + sys.argv[2] + '\\n')"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("no_proxy", "*")
    with Endpoint() as server:
        server.answer = lambda request: (200, b"ok")
        monkeypatch.setenv(VARIABLE, f"{server.address}/{SECRET}")
        yield server


@pytest.fixture
def values(spec_values: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A spec whose user is told in both ways."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "told"), "{name}: {stage}: {message}"]
    return {**spec_values, "notify": {"command": command, "webhook": f"${VARIABLE}"}}


def submitted(values: dict[str, Any], folder: Path) -> RunDir:
    (folder / "spec.json").write_text(json.dumps(values))
    done = launch("submit.py", "spec.json", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return RunDir(json.loads(done.stdout)["run_dir"])


def outcome(run: RunDir) -> dict[str, Any] | None:
    """What came of the first try, once it has ended."""
    file = run.notification_file("failed", 5, number=1)
    told = read_json(file) if file.exists() and file.stat().st_size else {}
    return told if told.get("ended") else None


def secrets(run: RunDir) -> list[Path]:
    return [path for path in run.path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_an_address_on_the_command_line_is_kept_in_the_spec_alone(values: dict[str, Any]) -> None:
    address = f"https://hooks.example.org/{SECRET}"
    spec = parse_spec({**values, "notify": {"webhook": address}})
    run = RunDir(spec.run_path)
    prepare_run(spec, make_plan(spec), run, ["submit.py", "--set", f"notify.webhook={address}"])
    assert sorted(secrets(run)) == [run.spec, run.submitted], "the spec, and the copy that it is held against"
    assert "notify.webhook=https://hooks.example.org/..." in read_json(run.provenance)["command"]


def test_the_local_driver_tells_how_the_run_ended(
    values: dict[str, Any], endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though somebody without the secret sees it fail before the driver does."""
    values["data"] |= {"max_length": 16, "overlong": "drop"}
    run = submitted(values, tmp_path)
    monkeypatch.delenv(VARIABLE)
    wait_for("the failure", lambda: [s for s in run.read_statuses() if s.state == "failed"], TIMEOUT_S)
    seen = [deliver_pending(run, "failed")]
    wait_for("the notification", lambda: seen.append(deliver_pending(run, "failed")) or outcome(run), TIMEOUT_S)
    assert outcome(run)["delivered"] and {delivery.line for delivery in seen} == {None}
    (request,) = endpoint.requests
    assert request["path"] == f"/{SECRET}" and request["text"].startswith("tiny: preprocess failed: no training row is")
    assert (tmp_path / "told").read_text().startswith("failed tiny: preprocess: no training row is left")
    driver_log = run.logs / "driver.log"
    wait_for("the driver's word", lambda: "hpcsft: notified: command" in driver_log.read_text(), TIMEOUT_S)
    assert not secrets(run)


@pytest.mark.slurm
def test_the_job_that_fails_tells_it_once(
    values: dict[str, Any], endpoint: Endpoint, tmp_path: Path, slurm: MiniSlurm
) -> None:
    """Here two tasks of an array fail at once, before they can say anything."""
    values["cluster"] |= {"kind": "slurm", "partition": "low", "setup": ["srun() { return 3; }"]}
    values["cluster"]["preprocess"] = {"tasks": 2}
    run = submitted(values, tmp_path)
    jobs = {job.job_id for job in run.read_submission().jobs}
    wait_for("the notification", lambda: outcome(run), TIMEOUT_S)
    wait_for("the end of its jobs", lambda: not [e for e in query_queue() if e.job_id in jobs and e.alive], TIMEOUT_S)
    assert [status.state for status in run.read_statuses()] == ["failed"] * 2
    (request,) = endpoint.requests
    assert (request["state"], request["stage"], request["run_dir"]) == ("failed", "preprocess", str(run.path))
    assert (tmp_path / "told").read_text().count("failed tiny: preprocess: the job ended with exit status 3") == 1
    assert outcome(run)["delivered"] and len(list(run.notified.iterdir())) == 1
    log = "".join(path.read_text() for path in (run.submitit / "preprocess").glob("*_log.out"))
    assert log.count("hpcsft: notified: command") == 1 and not secrets(run)
