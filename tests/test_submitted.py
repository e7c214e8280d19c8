"""Whoever edits a run's own spec.json or plan.json is told, by jobs and by resume, with what differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcsft.errors import StageError
from hpcsft.plan import make_plan
from hpcsft.records import read_json, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from hpcsft.submitted import differences, refuse_if_edited, write_settings
from tests.conftest import make_spec_values


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    values = make_spec_values(Path("/models/tiny"), Path("/data/a.jsonl"), Path("/data/p.json"), tmp_path / "runs")
    spec = parse_spec(values)
    run = RunDir(spec.run_path)
    run.create()
    write_settings(run, spec, make_plan(spec))
    return run


def test_what_nobody_has_edited_is_as_it_was_submitted_whatever_its_layout(run):
    refuse_if_edited(run)
    run.spec.write_text(json.dumps(read_json(run.spec), separators=(",", ":")))
    refuse_if_edited(run)
    run.submitted.unlink()
    write_json(run.spec, {**read_json(run.spec), "seed": 99})
    refuse_if_edited(run)  # a run of a version that kept no copy


def test_every_edit_is_named_with_its_place_and_both_values(run):
    spec = read_json(run.spec)
    spec["train"]["learning_rate"] = 0.5
    write_json(run.spec, spec)
    plan = read_json(run.plan)
    plan["stages"][1]["nodes"] = 7
    write_json(run.plan, plan)
    with pytest.raises(StageError, match="was edited after its submission") as error:
        refuse_if_edited(run)
    assert "spec.json: train.learning_rate is 0.5, submitted was 0.001" in error.value.message
    assert "plan.json: stages[1].nodes is 7, submitted was 1" in error.value.message
    assert f"python launch/resume.py {run.path} --set FIELD=VALUE" in error.value.hint


def test_a_file_that_an_editor_has_broken_is_named(run):
    run.plan.write_text('{"stages": [')
    with pytest.raises(StageError, match=r"plan\.json is no JSON any more"):
        refuse_if_edited(run)


def test_a_long_list_of_edits_is_cut(run):
    write_json(run.spec, {name: None for name in read_json(run.spec)})
    with pytest.raises(StageError, match=r"; and \d+ more"):
        refuse_if_edited(run)


def test_fields_that_came_and_went():
    assert differences({"a": {}, "b": 1}, {"a": {"x": 1}, "c": 2}, "f") == [
        "f: a is not there, submitted was {}",
        "f: b is not there, submitted was 1",
        "f: a.x is 1, submitted was not there",
        "f: c is 2, submitted was not there",
    ]
