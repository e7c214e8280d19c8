"""`doctor`, through the real script: with Slurm, without, and with one that does not answer."""

from __future__ import annotations

import json

import pytest

from tests.launch.command import empty_path, launch


@pytest.fixture
def spec_file(spec_values, tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec_values))
    return path


@pytest.mark.slurm
def test_a_cluster_is_explained(slurm, tmp_path):
    done = launch("doctor.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("cluster minislurm", "low*", "Preemption and requeue", "What hpcsft can promise here"):
        assert words in done.stdout
    assert "\x1b" not in done.stdout, "a pipe gets no colours"


@pytest.mark.slurm
def test_the_same_as_json(slurm, tmp_path):
    done = launch("doctor.py", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (done.returncode, document["schema_version"]) == (0, 1)
    assert [partition["name"] for partition in document["site"]["partitions"]] == ["low", "high"]
    assert {"holds", "text"} == set(document["promises"][0])


def test_without_slurm_it_says_what_works_here(tmp_path):
    path = empty_path(tmp_path / "bin")
    done = launch("doctor.py", cwd=tmp_path, path=path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("No Slurm here")
    assert json.loads(launch("doctor.py", "--json", cwd=tmp_path, path=path).stdout)["site"] is None


@pytest.mark.slurm
@pytest.mark.parametrize("kind", [[], ["slurm"]])
def test_a_slurm_that_does_not_answer(kind, slurm, spec_file, tmp_path, monkeypatch):
    (tmp_path / "slurm.conf").touch()
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    arguments = [spec_file, "--set", "cluster.kind=slurm"] if kind else []
    done = launch("doctor.py", *arguments, cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("error: ")
    assert "hint: try again when Slurm answers" in done.stderr


@pytest.mark.slurm
def test_a_spec_that_the_cluster_takes(slurm, spec_file, tmp_path):
    done = launch("doctor.py", spec_file, "--set", "cluster.kind=slurm", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning: cluster.train.partition: partition low preempts with no grace time" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("nothing stands against a submission")


@pytest.mark.slurm
def test_a_spec_that_the_cluster_refuses(slurm, spec_file, tmp_path):
    wrong = ["--set", "cluster.kind=slurm", "--set", "cluster.train.partition=hihg"]
    done = launch("doctor.py", spec_file, *wrong, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("error: cluster.train.partition: ")
    assert "submit.py refuses this" in done.stdout.splitlines()[-1]
    told = json.loads(launch("doctor.py", spec_file, *wrong, "--json", cwd=tmp_path).stdout)
    assert ("error", "cluster.train.partition") in [(row["level"], row["where"]) for row in told["findings"]]


def test_a_malformed_spec_is_reported_as_by_submit(spec_file, tmp_path):
    wrong = [spec_file, "--set", "train.epochz=3"]
    ours, theirs = launch("doctor.py", *wrong, cwd=tmp_path), launch("submit.py", *wrong, cwd=tmp_path)
    assert (ours.returncode, ours.stderr) == (theirs.returncode, theirs.stderr)
    assert ours.returncode == 2
    assert ours.stderr.startswith("error: train.epochz: unknown field")


def test_overrides_without_a_spec_are_refused(tmp_path):
    done = launch("doctor.py", "--set", "train.epochs=3", cwd=tmp_path)
    assert done.returncode == 2
    assert "--set is for a spec: doctor.py SPEC.json --set" in done.stderr
