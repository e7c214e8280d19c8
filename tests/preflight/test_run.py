"""All checks together, on the real Slurm: what is wrong is found at once and in order, and nothing is left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from hpcsft.errors import EXIT_INVALID, ClusterError, PreflightError
from hpcsft.inputs import check_inputs
from hpcsft.plan import make_plan
from hpcsft.preflight import run
from hpcsft.preflight.finding import Finding
from hpcsft.preflight.run import is_this_host, merged, paths_of, preflight, raise_errors
from hpcsft.site.read import read_site
from hpcsft.spec import parse_spec
from tests.preflight.made import planned

REFUSED = Finding(level="error", where="cluster.partition", message="no partition 'x'", hint="there are a, b")
TOO_LONG = Finding(level="error", where="cluster.time", message="too long", hint="1:00:00", forcible=True)
WARNING = Finding(level="warning", where="runs_dir", message="slow")
NOTE = Finding(level="note", where="cluster", message="starts soon")


def look(values: dict[str, Any], kind: str = "slurm", **known: Any) -> list[Finding]:
    spec = parse_spec(values)
    plan = make_plan(spec)
    return preflight(spec, plan, check_inputs(spec), kind, plan.stage_names, **known)


def test_all_errors_at_once_and_how_to_overrule_those_that_may_be():
    with pytest.raises(PreflightError, match=r"no partition 'x'; cluster\.time: too long") as caught:
        raise_errors([REFUSED, TOO_LONG, WARNING], force=False)
    assert caught.value.exit_code == EXIT_INVALID
    assert caught.value.lines() == [
        "error: cluster.partition: no partition 'x'",
        "hint: there are a, b",
        "error: cluster.time: too long",
        "hint: 1:00:00",
        "hint: --force submits all the same, once the others are mended",
    ]
    with pytest.raises(PreflightError) as caught:
        raise_errors([TOO_LONG])
    assert caught.value.lines()[-1] == "hint: --force submits all the same"
    with pytest.raises(PreflightError) as caught:
        raise_errors([REFUSED])
    assert caught.value.lines()[-1] == "hint: there are a, b"


def test_force_makes_warnings_of_what_may_be_overruled_and_of_nothing_else():
    with pytest.raises(PreflightError) as caught:
        raise_errors([REFUSED, TOO_LONG], force=True)
    assert caught.value.lines() == REFUSED.lines()
    forced, *rest = raise_errors([TOO_LONG, WARNING, NOTE], force=True)
    assert forced.level == "warning" and rest == [WARNING, NOTE]


def test_one_sentence_for_all_fields():
    other = REFUSED.model_copy(update={"where": "cluster.train.partition"})
    (found, note) = merged([REFUSED, NOTE, other, REFUSED])
    assert found.where == "cluster.partition, cluster.train.partition" and note == NOTE


def test_a_check_that_fails_by_its_own_mistake_is_a_note(spec_values, monkeypatch):
    def broken(*_: Any) -> None:
        raise KeyError("torn")

    monkeypatch.setattr(run, "storage_findings", broken)
    (note,) = look(spec_values, "local")
    assert note.lines() == ["note: storage: this could not be checked: KeyError: 'torn'"]


def test_on_this_machine_there_is_nothing_to_ask(spec_values, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert look(spec_values, "local") == []
    spec_values["train"] |= {"checkpoint": {"keep_last": 10**8}}
    room, files = look(spec_values, "local")
    assert (room.where, files.where) == ("runs_dir", "runs_dir")
    assert "the run writes up to" in room.message and "a run makes up to" in files.message


def test_an_environment_that_is_not_there_is_one_error_and_not_ten(spec_values):
    spec_values["cluster"]["venv"] = "/nowhere/venv"
    (error,) = look(spec_values, "local")
    assert error.where == "cluster.venv" and "/nowhere/venv/bin/python is not there" in error.message


def test_what_compute_nodes_have_to_see(tmp_path):
    spec, _ = planned(data={"train": ["/data/*.jsonl", "hub:a/b"]}, evaluate={"prompts": "/data/p.json"})
    paths = paths_of(spec)
    assert paths["data.train"] == ["/data"] and paths["evaluate.prompts"] == ["/data/p.json"]
    assert {"runs_dir", "model.path", "python"} <= paths.keys()
    assert paths_of(planned(cluster={"venv": "/venv"})[0])["cluster.venv"] == ["/venv"]
    container = {"runtime": "apptainer", "image": "/images/a.sif"}
    assert paths_of(planned(cluster={"container": container})[0])["cluster.container.image"] == ["/images/a.sif"]


def test_hosts(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "login1.site.org")
    assert is_this_host("localhost") and is_this_host("login1") and not is_this_host("node7.site.org")


@pytest.fixture
def on_slurm(slurm, spec_values, tmp_path, monkeypatch):
    """The values of a spec for the real Slurm."""
    monkeypatch.setenv("HOME", str(tmp_path))
    spec_values["cluster"] |= {"kind": "slurm", "train": {"nodes": 2, "tasks_per_node": 2, "gpus_per_node": 0}}
    return spec_values


@pytest.mark.slurm
def test_a_good_spec_on_a_real_slurm(slurm, on_slurm):
    before = slurm.run("squeue", "-h", "-t", "all").stdout
    look(on_slurm)
    began = time.monotonic()
    found = look(on_slurm)
    assert time.monotonic() - began < 5
    assert not [finding for finding in found if finding.level == "error"], found
    assert not [finding for finding in found if "could not be checked" in finding.message]
    assert [f.where for f in found if f.level == "note" and "would start" in f.message] == [
        "cluster.preprocess",
        "cluster",
    ]
    assert slurm.run("squeue", "-h", "-t", "all").stdout == before
    assert not Path(on_slurm["runs_dir"]).exists()


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("given", "told", "forcible"),
    [
        ({"partition": "lwo"}, "cluster.partition: this cluster has no partition 'lwo' (Slurm: invalid part", False),
        ({"mem_gb": 70}, "cluster.mem_gb: 70 GB a node are asked for, and partition low has nodes with at most", True),
        ({"constraint": "ib"}, "cluster.constraint: of partition low no node(s) meet the constraint ib", False),
        ({"preprocess": {"tasks": 5000}}, "cluster.preprocess.tasks: an array of 5000 jobs", False),
        ({"sbatch": {"reservation": "x"}}, "cluster.sbatch: Slurm refuses preprocess, train, generate, judge", False),
    ],
)
def test_bad_specs_on_a_real_slurm(on_slurm, given, told, forcible):
    on_slurm["cluster"] |= given
    (error, *_) = [finding for finding in look(on_slurm) if finding.level == "error"]
    assert f"{error.where}: {error.message}".startswith(told)
    assert error.forcible is forcible


@pytest.mark.slurm
def test_a_limit_that_sbatch_lets_pass_and_that_holds_the_job_for_ever(slurm, on_slurm):
    """The very reason for looking besides asking Slurm."""
    slurm.run("scontrol", "update", "PartitionName=low", "MaxTime=5")
    try:
        on_slurm["cluster"]["train"]["time"] = "00:10:00"
        on_slurm["cluster"]["time"] = "00:05:00"
        errors = [finding for finding in look(on_slurm) if finding.level == "error"]
    finally:
        slurm.run("scontrol", "update", "PartitionName=low", "MaxTime=UNLIMITED")
    (error,) = errors
    assert error.where == "cluster.train.time" and "5:00 that partition low allows" in error.message and error.forcible


@pytest.mark.slurm
def test_nodes_that_are_drained_are_no_error(slurm, on_slurm):
    """sbatch --test-only refuses such a job; sbatch takes it, and it waits."""
    slurm.run("scontrol", "update", "NodeName=n[1-3]", "State=DRAIN", "Reason=test")
    try:
        found = look(on_slurm)
    finally:
        slurm.run("scontrol", "update", "NodeName=n[1-3]", "State=RESUME")
    assert not [finding for finding in found if finding.level == "error"], found
    assert any("can be used now: others are down or drained" in finding.message for finding in found)


@pytest.mark.slurm
def test_files_that_other_nodes_cannot_see(slurm, on_slurm, monkeypatch):
    monkeypatch.setattr(run, "is_this_host", lambda host: False)  # as on any cluster with a login node
    found = look(on_slurm, site=read_site())
    assert any("runs_dir" in finding.where and "machine" in finding.message for finding in found), found


@pytest.mark.slurm
def test_a_slurm_that_does_not_answer_is_an_error_of_its_own(slurm, on_slurm, tmp_path, monkeypatch):
    conf = tmp_path / "slurm.conf"
    text = slurm.conf.read_text().replace("MessageTimeout", "#")
    port = next(line for line in text.splitlines() if line.startswith("SlurmctldPort="))
    conf.write_text(text.replace(port, "SlurmctldPort=1") + "MessageTimeout=2\n")
    monkeypatch.setitem(os.environ, "SLURM_CONF", str(conf))
    with pytest.raises(ClusterError):
        look(on_slurm)
