"""On one machine the driver runs in the interpreter that the spec names, behind modules and activation scripts."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcsft.cluster.local import start_driver, stop_driver
from hpcsft.errors import HpcsftError
from hpcsft.plan import make_plan
from hpcsft.records import read_json, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from tests import waiting
from tests.attempt.made import empty_run
from tests.launch.command import ROOT, environment

START = """
import sys
from hpcsft.cluster.local import start_driver
from hpcsft.rundir import RunDir
print(start_driver(RunDir(sys.argv[1]), ["preprocess"]))
"""
MODULES = 'module() { [ "$2" = good ] && export FROM_MODULE=yes LOADEDMODULES=good; }\n'


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Starts the driver of a run with this `cluster` and gives the run and the driver's job."""
    (tmp_path / "init").mkdir()
    (tmp_path / "init/bash").write_text(MODULES)
    monkeypatch.setenv("MODULESHOME", str(tmp_path))
    jobs: list[tuple[RunDir, str]] = []

    def start(**cluster: Any) -> tuple[RunDir, str]:
        run = empty_run(tmp_path)
        values = read_json(run.spec)
        values["cluster"].update(cluster)
        spec = parse_spec(values)
        write_json(run.spec, spec)
        write_json(run.plan, make_plan(spec))
        run.code.symlink_to(ROOT)
        command = [sys.executable, "-c", START, str(run.path)]
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        jobs.append((run, done.stdout.strip()))
        return jobs[-1]

    yield start
    for run, job_id in jobs:
        stop_driver(run, job_id, socket.gethostname())


def status_of(run: RunDir) -> Any:
    return waiting.wait_for(
        "the end of preprocess", lambda: (s := run.read_status("preprocess", 0, 1)) and s.state == "failed" and s, 60
    )


def test_the_driver_and_its_tasks_run_in_the_environment(started, tmp_path: Path) -> None:
    """Its Python writes down what it was started with, and is this one."""
    prefix = tmp_path / "env"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "etc/conda/activate.d").mkdir(parents=True)
    (prefix / "etc/conda/activate.d/a.sh").write_text("export FROM_CONDA=$CONDA_PREFIX\n")
    (prefix / "bin/python").write_text(
        f'#!/bin/sh\necho "$FROM_MODULE $FROM_CONDA $*" >> {tmp_path}/seen\nexec {sys.executable} "$@"\n'
    )
    (prefix / "bin/python").chmod(0o755)
    run, job_id = started(conda=str(prefix), modules=["good"])
    status = status_of(run)  # its inputs are nowhere
    assert status.job_id == job_id and "/models/tiny" in status.message
    seen = (tmp_path / "seen").read_text().splitlines()
    assert seen[0] == f"yes {prefix} -m hpcsft.cluster.local {run.path} preprocess"


def test_a_module_that_does_not_load_is_told_as_on_slurm(started) -> None:
    run, job_id = started(modules=["good", "nope"])
    status = status_of(run)
    assert status.job_id == job_id
    assert status.message.startswith("cluster.modules: the module nope does not load (on ")
    rows = [json.loads(line) for line in run.journal_file("preprocess", 0, 1).read_text().splitlines()]
    assert [(row["event"], row["cause"]) for row in rows] == [("failed", "environment"), ("end", "environment")]


def test_a_container_is_for_slurm(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    values = read_json(run.spec)
    values["cluster"]["container"] = {"runtime": "apptainer", "image": "/a.sif"}
    write_json(run.spec, parse_spec(values))
    with pytest.raises(HpcsftError, match=r"cluster\.container is for Slurm"):
        start_driver(run, ["preprocess"])
