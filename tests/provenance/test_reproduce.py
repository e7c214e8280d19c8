"""Guards the way back: the spec that `reproduce` writes gives the same bits, with the run's own code; and what has
changed since is told, and never told where nothing has.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpcsft.digest import sha256_of
from hpcsft.errors import HpcsftError, StageError
from hpcsft.provenance.attempt import record_attempt
from hpcsft.provenance.hashing import InputHashing
from hpcsft.provenance.reproduce import Reproduction, reproduce, reproduction_text
from hpcsft.records import read_json, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from tests.launch.command import ROOT, launch
from tests.prepared import TASK, new_run

TIMEOUT_S = 300


@pytest.fixture
def run(spec_values: dict[str, Any], tmp_path: Path) -> RunDir:
    """A run with data of its own, whose stages have left what `reproduce` looks at."""
    data = tmp_path / "data" / "a.jsonl"
    data.parent.mkdir()
    shutil.copy(spec_values["data"]["train"][0], data)
    spec_values["data"]["train"] = [str(data.parent)]
    run = new_run(spec_values)
    with InputHashing(run, parse_spec(spec_values), 0, 1) as work:
        work.finish(lambda: None)
    record_attempt(run, "train", 0, TASK)
    return run


@pytest.fixture
def root(run: RunDir, tmp_path: Path) -> Path:
    """The code as it was: this checkout may be edited while the tests run."""
    shutil.copytree(run.code, tmp_path / "checkout")
    provenance = read_json(run.provenance)
    write_json(run.provenance, {**provenance, "commit": None})
    return tmp_path / "checkout"


def look(run: RunDir, root: Path, tmp_path: Path, verify: bool = False) -> Reproduction:
    return reproduce(run, root, tmp_path / "again.json", verify)


def test_nothing_has_changed(run, root, tmp_path):
    for verify in (False, True):
        found = look(run, root, tmp_path, verify)
        assert found.changes == [] and found.unchanged and found.notes == []
    assert read_json(tmp_path / "again.json") == read_json(run.spec)
    assert (tmp_path / "again.json").stat().st_mode & 0o077 == 0
    text = reproduction_text(found)
    assert "nothing has changed since" in text and "bit for bit the same on 2 ranks" in text
    assert f"{run.code}/launch/submit.py" in text and f"{root}/launch/submit.py" in text
    assert f"runs_dir={run.path.parent}-again" in text


def test_what_somebody_has_written_down_changes_no_terminal(run, root, tmp_path):
    write_json(run.provenance, {**read_json(run.provenance), "host": "vm\x1b]0;title\x07\x1b[31m\x9b2J"})
    text = reproduction_text(look(run, root, tmp_path))
    assert "on vm\n" in text or "on vm," in text
    assert "\x1b" not in text and "\x9b" not in text


def test_inputs_that_changed(run, root, tmp_path):
    data = tmp_path / "data" / "a.jsonl"
    os.utime(data, (1, 1))
    [change] = look(run, root, tmp_path).changes
    assert change.name == f"{data} (data.train)" and change.now == "written since"
    assert look(run, root, tmp_path, verify=True).unchanged, "the same content"
    data.write_bytes(data.read_bytes().swapcase())
    [change] = look(run, root, tmp_path, verify=True).changes
    assert change.now == f"sha256 {sha256_of(str(data))[:12]}"
    data.rename(data.with_name("b.jsonl"))
    found = look(run, root, tmp_path)
    assert [(each.then, each.now) for each in found.changes] == [("there", "gone"), ("not there", "there")]
    assert not found.unchanged


def test_code_that_changed(run, root, tmp_path):
    (root / "jobs" / "train.py").write_text("# another\n")
    found = look(run, root, tmp_path)
    assert [change.name for change in found.changes] == ["changed: jobs/train.py"] and found.notes == []
    (run.code / "jobs" / "train.py").write_text("# another\n")
    found = look(run, root, tmp_path)
    assert found.changes == [] and "was edited after the submission" in found.notes[0]


def test_a_run_of_an_older_version(run, root, tmp_path):
    """Its code cannot submit itself, and its preprocessing has told of no input."""
    shutil.rmtree(run.code / "launch")
    shutil.rmtree(run.provenance_folder)
    old = read_json(run.provenance)
    kept = ("time", "host", "command", "python", "platform", "commit", "diff")
    packages = {name: version for name, version in old["packages"].items() if name != "accelerate"}
    write_json(run.provenance, {**{key: old[key] for key in kept}, "packages": packages, "user": ""})
    found = look(run, root, tmp_path)
    assert found.changes == [] and "own_code" not in found.commands
    assert found.notes == [
        "preprocessing has not written down its inputs: nothing can be told about them",
        "no attempt at training has left a record of its machine",
    ]
    assert "by unknown on" in reproduction_text(found)


def test_a_key_that_is_not_set_here(run, root, tmp_path, monkeypatch):
    monkeypatch.delenv("OTHER_KEY", raising=False)
    spec = read_json(run.spec)
    spec["evaluate"]["judge"].update(kind="openai", model="m", api_key_env="OTHER_KEY")
    run.submitted.unlink()  # of a version that kept no copy
    write_json(run.spec, spec)
    found = look(run, root, tmp_path)
    assert any("OTHER_KEY is not set" in note for note in found.notes) and found.unchanged


def test_a_spec_that_is_not_taken_any_more(run, root, tmp_path):
    run.submitted.unlink()  # of a version that kept no copy
    write_json(run.spec, {**read_json(run.spec), "no_such_field": 1})
    found = look(run, root, tmp_path)
    assert any("does not take this spec: error: no_such_field: unknown field" in note for note in found.notes)


def test_a_file_of_the_users_is_not_overwritten(run, root, tmp_path):
    (tmp_path / "again.json").write_text("mine")
    with pytest.raises(HpcsftError, match=r"again\.json exists and is another file") as caught:
        look(run, root, tmp_path)
    assert caught.value.hint == "--output FILE names a new one"
    with pytest.raises(HpcsftError, match=r"no/such/folder\.json: cannot be written: No such file or directory"):
        reproduce(run, root, tmp_path / "no" / "such" / "folder.json", False)
    assert (tmp_path / "again.json").read_text() == "mine"


def test_a_run_without_provenance(run, root, tmp_path):
    run.provenance.unlink()
    with pytest.raises(HpcsftError, match=r"provenance\.json is missing"):
        look(run, root, tmp_path)


def submit(script: Path, spec: Path, *options: str) -> RunDir:
    done = launch(str(script), spec, *options, "--json", "--watch", cwd=spec.parent, timeout_s=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return RunDir(json.loads(done.stdout)["run_dir"])


def weights(run: RunDir) -> dict[str, str]:
    return {str(file.relative_to(run.models)): sha256_of(str(file)) for file in run.models.rglob("*.safetensors")}


def test_the_written_spec_gives_the_same_bits(spec_values, tmp_path):
    """By the run's own code, in another folder of runs."""
    spec_values["evaluate"] = None
    spec_values["cluster"]["train"]["tasks_per_node"] = 1
    (tmp_path / "spec.json").write_text(json.dumps(spec_values))
    first = submit(ROOT / "launch" / "submit.py", tmp_path / "spec.json", "--set", "train.epochs=1")
    done = launch("reproduce.py", first.path, "--output", "again.json", "--verify", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["spec"] == "again.json" and document["schema_version"] == 1
    assert done.returncode == (0 if all(not change["weights"] for change in document["changes"]) else 1), done.stderr
    assert not [change for change in document["changes"] if change["what"] != "code"]
    own = first.code / "launch" / "submit.py"
    assert str(own) in document["commands"]["own_code"]
    second = submit(own, tmp_path / "again.json", "--set", f"runs_dir={tmp_path / 'elsewhere'}")
    assert second.path != first.path and len(weights(first)) >= 1
    assert weights(second) == weights(first)
    codes = [read_json(run.provenance)["code_digest"] for run in (first, second)]
    assert codes[0] == codes[1] and read_json(second.provenance)["commit"] is None
    assert {record["sha256"] for record in read_json(first.inputs)["files"]} == {
        record["sha256"] for record in read_json(second.inputs)["files"]
    }


def test_a_spec_that_was_edited_is_not_what_ran(run, root, tmp_path):
    write_json(run.spec, {**read_json(run.spec), "seed": 8})
    with pytest.raises(StageError, match=r"was edited after its submission: spec\.json: seed is 8, submitted was"):
        look(run, root, tmp_path)
