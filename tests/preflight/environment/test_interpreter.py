"""What the stages are to run in is looked for before anything is queued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsft.preflight.environment.interpreter import interpreter_findings
from hpcsft.preflight.finding import Finding
from hpcsft.spec import parse_spec
from tests.spec.values import minimal


def found(kind: str = "slurm", **cluster: Any) -> list[Finding]:
    return list(interpreter_findings(parse_spec(minimal(cluster=cluster)), kind))


def container(folder: Path, **values: Any) -> dict[str, Any]:
    (folder / "a.sif").touch()
    return {"runtime": "apptainer", "image": str(folder / "a.sif"), **values}


@pytest.fixture
def apptainer(tmp_path, monkeypatch):
    (tmp_path / "apptainer").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize("field", ["venv", "conda"])
def test_the_python_of_an_environment_is_there_and_runs(tmp_path, field):
    (finding,) = found(**{field: str(tmp_path)})
    assert (finding.level, finding.where) == ("error", f"cluster.{field}")
    assert finding.message == f"{tmp_path}/bin/python is not there, at least on this node"
    assert str(tmp_path) in finding.hint and finding.forcible, "compute nodes may have it"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").touch(mode=0o644)
    (finding,) = found(**{field: str(tmp_path)})
    assert "bin/python cannot be executed" in finding.message
    (tmp_path / "bin/python").chmod(0o755)
    assert found(**{field: str(tmp_path)}) == [] == found()


def test_a_container_that_is_all_there_is_no_finding(tmp_path, apptainer):
    assert found(container=container(tmp_path, mounts=[f"{tmp_path}:/x"])) == []
    assert found(container={"runtime": "pyxis", "image": "nvcr.io#nvidia/pytorch:24.01-py3"}) == []


def test_what_a_container_lacks_is_told(tmp_path, apptainer):
    image, mount = found(container=container(tmp_path, image="/nowhere/b.sif", mounts=["/nowhere/c:/c"]))
    assert (image.where, image.forcible) == ("cluster.container.image", True)
    assert image.message.startswith("/nowhere/b.sif is not there")
    assert (mount.where, mount.level, mount.forcible) == ("cluster.container.mounts", "error", True)
    assert mount.message.startswith("/nowhere/c is not there")


def test_a_runtime_that_only_compute_nodes_have_is_worth_a_note(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    (finding,) = found(container=container(tmp_path))
    assert finding.level == "note" and "there is no apptainer on this node" in finding.message


def test_the_local_cluster_has_no_containers(tmp_path):
    (finding,) = found("local", container=container(tmp_path))
    assert (finding.level, finding.where) == ("error", "cluster.container")
    assert "start hpcsft itself in the container" in finding.hint
