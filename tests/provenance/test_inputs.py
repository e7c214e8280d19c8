"""Guards that every file which decides a run is among its inputs, and no file that does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcsft.provenance.inputs import (
    HubData,
    InputFile,
    Inputs,
    hub_names,
    input_paths,
    model_files,
    read_inputs,
    state_now,
    write_whole,
)
from hpcsft.records import read_json, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec, parse_spec


def empty_run(spec: ExperimentSpec) -> RunDir:
    run = RunDir(spec.run_path)
    run.create()
    return run


def names(paths: list[str]) -> set[str]:
    return {Path(path).name for path in paths}


def test_all_that_a_spec_reads(spec_values, tmp_path, prompts_file, tiny_model):
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    (tmp_path / "held.jsonl").write_text("{}\n")
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "board.csv").write_text("")
    (tmp_path / "tasks" / "deep").mkdir(parents=True)
    (tmp_path / "tasks" / "deep" / "t.yaml").write_text("task: t")
    spec_values["data"].update(template=str(tmp_path / "t.jinja"), validation=[str(tmp_path / "held.jsonl")])
    spec_values["evaluate"].update(
        outputs={"o": str(tmp_path / "other.json")}, leaderboards=[str(tmp_path / "board.csv")]
    )
    spec_values["benchmark"] = {"tasks": ["t"], "include_path": str(tmp_path / "tasks")}
    found = input_paths(parse_spec(spec_values))
    wheres = {where: names([path for path in found if found[path] == where]) for where in found.values()}
    assert wheres.pop("model.path") == {path.name for path in tiny_model.iterdir()}
    assert wheres == {
        "data.train": {"ultrachat.jsonl"},
        "data.validation": {"held.jsonl"},
        "data.template": {"t.jinja"},
        "evaluate.prompts": {prompts_file.name},
        "evaluate.outputs.o": {"other.json"},
        "evaluate.leaderboards": {"board.csv"},
        "benchmark.include_path": {"t.yaml"},
    }, "the judge is the model itself: each file once"


def test_of_weights_only_those_that_are_loaded(tiny_model, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_model.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "pytorch_model.bin").write_bytes(b"of no use beside safetensors")
    (folder / "modeling_own.py").write_text("")
    (folder / ".cache").mkdir()
    found = names(model_files(str(folder)))
    assert found == {path.name for path in tiny_model.iterdir()} | {"modeling_own.py"}
    assert model_files(str(tmp_path / "nothing")) == []


def test_of_an_adapter_its_base_model_too(tiny_model, tmp_path):
    for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text(json.dumps({"base_model_name_or_path": str(tiny_model)}))
    found = model_files(str(tmp_path))
    assert str(tmp_path / "adapter_model.safetensors") in found and str(tiny_model / "model.safetensors") in found


def test_what_is_missing_is_left_to_those_who_need_it(spec_values, tmp_path):
    spec_values["data"]["train"] = [str(tmp_path / "gone.jsonl")]
    spec_values["model"]["path"] = str(tmp_path / "no-model")
    spec_values["evaluate"] = None
    assert input_paths(parse_spec(spec_values)) == {}


def test_data_of_the_hub_has_a_name_and_no_file(spec_values):
    spec_values["data"]["train"].append("hub:owner/some:train")
    spec = parse_spec(spec_values)
    assert hub_names(spec) == [("data.train", "hub:owner/some:train")]
    assert "hub:owner/some:train" not in input_paths(spec)


def digested(path: str) -> InputFile:
    return state_now(path, "data.train").model_copy(update={"sha256": "0" * 64})


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"files": [1]}'])
def test_parts_become_one_document_when_all_is_there(spec_values, damage):
    spec = parse_spec(spec_values)
    run = empty_run(spec)
    files = [digested(path) for path in input_paths(spec)]
    write_json(run.inputs_part(0), Inputs(files=files[::2]))
    write_whole(run, spec)
    assert not run.inputs.exists() and len(read_inputs(run).files) == len(files[::2])
    run.inputs_part(1).write_text(damage)
    write_whole(run, spec)
    assert not run.inputs.exists()
    write_json(run.inputs_part(1), Inputs(files=files[1::2]))
    write_whole(run, spec)
    assert [file["path"] for file in read_json(run.inputs)["files"]] == list(input_paths(spec))
    assert list(run.provenance_folder.iterdir()) == [run.inputs]
    assert read_inputs(run).files == files


def test_data_of_the_hub_is_waited_for(spec_values):
    spec_values["data"]["train"].append("hub:owner/some:train")
    spec = parse_spec(spec_values)
    run = empty_run(spec)
    files = [digested(path) for path in input_paths(spec)]
    write_json(run.inputs_part(1), Inputs(files=files))
    write_whole(run, spec)
    assert not run.inputs.exists()
    hub = HubData(where="data.train", name="hub:owner/some:train", revision=None, fingerprint="f")
    write_json(run.inputs_part(0), Inputs(hub=[hub]))
    write_whole(run, spec)
    assert read_inputs(run).hub == [hub]
