"""All stages in a container on the real Slurm, isolated by the stand-in for Apptainer: what is not bound is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpcsft.records import read_jsonl
from hpcsft.rundir import RunDir
from tests import waiting
from tests.cluster.minislurm import MiniSlurm
from tests.launch.command import ROOT, launch

pytestmark = pytest.mark.slurm

STAND_IN = ROOT / "tests/cluster/stand_in"
TIMEOUT_S = 240
VALUE = 'it\'s $HOME, "x"'


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image of this very Python, whose `python3` writes down what it was given; and the stand-in on the PATH."""
    works = ["bwrap", "--ro-bind", "/", "/", "true"]
    if not shutil.which("bwrap") or subprocess.run(works, capture_output=True).returncode:
        pytest.skip("NO BUBBLEWRAP HERE, or it may not isolate: as root, python -m tests.cluster.install")
    image, layer = tmp_path / "image", tmp_path / "layer"
    image.mkdir()
    layer.mkdir()
    (layer / "python3").write_text(
        '#!/bin/sh\nenv > "../seen-$SLURM_JOB_NAME-$SLURM_PROCID"\n'
        f'ls -d {ROOT}/hpcsft ~/.bashrc /usr/bin/env > "../visible-$SLURM_JOB_NAME" 2>&1\nexec {sys.executable} "$@"\n'
    )
    (layer / "python3").chmod(0o755)
    layers = dict.fromkeys(["/usr", "/etc", sys.base_prefix, sys.prefix, str(layer)])
    (image / "layers").write_text("\n".join(layers))
    (image / "environment").write_text(f"PATH={layer}:/usr/bin\nFROM_SPEC=image\nFROM_IMAGE=image\n")
    monkeypatch.setenv("PATH", f"{STAND_IN}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", "/of/the/host")
    return image


def seen(run: RunDir, stage: str, rank: int = 0) -> dict[str, str]:
    """The environment of a rank."""
    lines = (run.path / f"seen-tiny.{stage}-{rank}").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def submit(values: dict[str, Any], folder: Path, image: Path, **cluster: Any) -> RunDir:
    container = {"runtime": "apptainer", "image": str(image)}
    values["cluster"] = {"kind": "slurm", "partition": "low", "cpus_per_task": 1, "container": container, **cluster}
    (folder / "spec.json").write_text(json.dumps(values))
    done = launch("submit.py", "spec.json", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return RunDir(json.loads(done.stdout)["run_dir"])


def wait_for_end(run: RunDir) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        done = launch("monitor.py", run.path, "--once", "--json", cwd=run.path)
        return json.loads(done.stdout) if done.returncode != 101 else None

    return waiting.wait_for("the end of the run", ended, TIMEOUT_S)


def test_all_stages_run_in_a_container_that_sees_only_what_the_spec_names(
    slurm: MiniSlurm, spec_values: dict[str, Any], image: Path, tmp_path: Path
) -> None:
    data = tmp_path / "it's data"
    data.mkdir()
    shutil.copy(spec_values["data"]["train"][0], data / "a b.jsonl")
    spec_values["data"]["train"] = [f"{data}/*.jsonl"]
    spec_values["train"]["epochs"] = 1
    train = {"nodes": 2, "tasks_per_node": 1}
    run = submit(
        spec_values, tmp_path, image, train=train, network={"interface": "lo"}, env={"FROM_SPEC": VALUE}, time=10
    )
    assert wait_for_end(run)["state"] == "done"
    assert (run.report / "leaderboard.csv").exists()
    for stage in ("preprocess", "train", "generate", "judge", "report"):
        there = seen(run, stage)
        assert (there["FROM_SPEC"], there["FROM_IMAGE"], there["PYTHONNOUSERSITE"]) == (VALUE, "image", "1")
        assert "PYTHONPATH" not in there and there["PWD"] == str(run.code)
        assert ("GLOO_SOCKET_IFNAME" in there) == (stage == "train")
        visible = (run.path / f"visible-tiny.{stage}").read_text()
        assert "\n/usr/bin/env\n" in f"\n{visible}" and visible.count("No such file") == 2
    assert seen(run, "train", 1)["HPCSFT_MASTER_ADDR"] == "127.0.0.1"


def test_a_notice_reaches_the_ranks_in_a_container_and_the_job_goes_on(
    slurm: MiniSlurm, spec_values: dict[str, Any], image: Path, tmp_path: Path
) -> None:
    """Nobody inside can ask Slurm: the batch script tells the end of the time limit, and decides what is next."""
    spec_values.update(evaluate=None)
    spec_values["train"]["epochs"] = 1000
    began_s = time.time()
    run = submit(spec_values, tmp_path, image, time=30, train={"tasks_per_node": 2})

    def rows(event: str) -> list[dict[str, Any]]:
        file = run.attempts / "train.jsonl"
        return [row for row in read_jsonl(file) if row["event"] == event] if file.exists() else []

    try:
        waiting.wait_for("the first steps", lambda: run.metrics.exists() and list(read_jsonl(run.metrics)), TIMEOUT_S)
        job_id = run.read_submission().latest()["train"].job_id
        slurm.run("scancel", "--signal=USR2", job_id)
        waiting.wait_for("the second attempt", lambda: len(rows("resumed")) == 2, TIMEOUT_S)
    finally:
        launch("cancel.py", run.path, "--yes", cwd=run.path)
    (stopped, *_), (first, second) = rows("stopped"), rows("resumed")
    assert (stopped["signal"], stopped["cause"]) == ("SIGUSR2", "preemption"), "the end is half an hour away"
    assert (first["step"], second["step"], second["lost_steps"]) == (0, stopped["step"], 0)
    assert began_s + 1800 < float(seen(run, "train")["SLURM_JOB_END_TIME"]) < time.time() + 1870
