"""Guards that jobs read the folder and the commit that were fetched, while the spec as given names the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsft.errors import InputError
from hpcsft.hub.fetched import Fetched, FetchedData, FetchedModel, data_names, local_spec, model_names, read_fetched
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec, parse_spec

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def spec(spec_values) -> ExperimentSpec:
    spec_values["model"]["path"] = "hub:a/model"
    spec_values["evaluate"]["judge"]["model"] = "hub:a/judge@v1"
    spec_values["data"].update(train=["hub:a/talk:train_sft", "/d/rows.jsonl"], validation=["hub:a/talk/en@v2:test"])
    return parse_spec(spec_values)


def fetched_into(tmp_path: Path, *models: str) -> Fetched:
    for name in ("model", "judge"):
        (tmp_path / name).mkdir(exist_ok=True)
    data = FetchedData(revision=COMMIT, config="en", cache="/c", folder="/c/x", size_bytes=1)
    return Fetched(
        models={
            name: FetchedModel(revision=COMMIT, folder=str(tmp_path / name.split("@")[0][6:]), files={})
            for name in models
        },
        data={name: data for name in ("hub:a/talk:train_sft", "hub:a/talk/en@v2:test")},
    )


def test_what_a_spec_names(spec):
    assert model_names(spec) == {"hub:a/model": "model.path", "hub:a/judge@v1": "evaluate.judge.model"}
    assert data_names(spec) == {"hub:a/talk:train_sft": "data.train", "hub:a/talk/en@v2:test": "data.validation"}


def test_folders_and_commits_take_the_place_of_names(spec, tmp_path):
    local = local_spec(spec, fetched_into(tmp_path, "hub:a/model", "hub:a/judge@v1"))
    assert local.model.path == str(tmp_path / "model")
    assert local.evaluate.judge.model == str(tmp_path / "judge")
    assert local.data.train == [f"hub:a/talk/en@{COMMIT}:train_sft", "/d/rows.jsonl"]
    assert local.data.validation == [f"hub:a/talk/en@{COMMIT}:test"]
    assert local.model_copy(update={"model": spec.model, "data": spec.data, "evaluate": spec.evaluate}) == spec


def test_an_endpoints_model_is_no_name_on_the_hub(spec_values):
    spec_values["evaluate"]["judge"] = {"kind": "openai", "model": "hub:whatever the endpoint calls it"}
    spec = parse_spec(spec_values)
    assert model_names(spec) == {}
    assert local_spec(spec, Fetched()) is spec


def test_a_model_that_was_not_fetched(spec, tmp_path):
    with pytest.raises(
        InputError, match=r"evaluate\.judge\.model: hub:a/judge@v1 is not fetched for this run$"
    ) as caught:
        local_spec(spec, fetched_into(tmp_path, "hub:a/model"))
    assert "python launch/resume.py RUN_DIR" in caught.value.hint


def test_a_model_whose_folder_this_node_does_not_see(spec, tmp_path):
    fetched = fetched_into(tmp_path, "hub:a/model", "hub:a/judge@v1")
    (tmp_path / "model").rmdir()
    with pytest.raises(
        InputError, match=f"model.path: hub:a/model .* into {tmp_path}/model, which is not here"
    ) as caught:
        local_spec(spec, fetched)
    assert "HF_HOME must be on a shared filesystem" in caught.value.hint


def test_a_run_without_names_has_fetched_nothing(tmp_path):
    assert read_fetched(RunDir(tmp_path)) == Fetched()


def test_files_that_were_cut_or_are_gone(tmp_path):
    (tmp_path / "a").write_bytes(b"12")
    assert FetchedModel(revision=COMMIT, folder=str(tmp_path), files={"a": 2}).is_whole()
    assert not FetchedModel(revision=COMMIT, folder=str(tmp_path), files={"a": 3}).is_whole()
    assert not FetchedModel(revision=COMMIT, folder=str(tmp_path), files={"a": 2, "b": 0}).is_whole()
    data = FetchedData(revision=COMMIT, config="en", cache="/c", folder=str(tmp_path), size_bytes=1)
    assert not data.is_whole()
    (tmp_path / "dataset_info.json").touch()
    assert data.is_whole()
