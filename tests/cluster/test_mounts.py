"""What a container sees: all that the spec names and where its links lead, read-only, and the runs to write to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcsft.cluster.mounts import container_mounts, inputs_of, merged
from hpcsft.errors import InputError
from hpcsft.spec import parse_spec
from tests.spec.values import changed, minimal


def values_in(folder: Path, **more: Any) -> dict[str, Any]:
    values = minimal(runs_dir=str(folder / "runs"), cluster={"container": {"runtime": "apptainer", "image": "/i.sif"}})
    values["model"]["path"], values["data"]["train"] = str(folder / "models/a"), [str(folder / "data/u.jsonl")]
    return {**values, **more}


def mounts(values: dict[str, Any], stage: str = "train", **environ: str) -> list[str]:
    return container_mounts(parse_spec(values), stage, {"HF_HOME": "/nowhere", **environ})


def test_inputs_are_seen_and_runs_can_be_written(tmp_path):
    here = str(tmp_path)
    assert mounts(values_in(tmp_path)) == [
        f"{here}/data/u.jsonl:{here}/data/u.jsonl:ro",
        f"{here}/models/a:{here}/models/a:ro",
        f"{here}/runs:{here}/runs",
    ]
    without = changed(values_in(tmp_path), "cluster.container", None)
    assert mounts(without) == []


def test_of_a_glob_the_folder_where_it_begins_and_nothing_twice(tmp_path):
    values = values_in(tmp_path)
    values["data"]["train"] = [
        f"{tmp_path}/data/*/u-*.jsonl",
        f"{tmp_path}/data/x/u-1.jsonl",
        f"{tmp_path}/runs/a.json",
    ]
    found = mounts(values)
    assert f"{tmp_path}/data:{tmp_path}/data:ro" in found and len(found) == 3


def test_the_folder_with_the_runs_stays_writable_where_the_inputs_are_around_it(tmp_path):
    """The runs come later, and so on top."""
    values = values_in(tmp_path)
    values["data"]["train"] = [f"{tmp_path}/*.jsonl"]
    assert mounts(values) == [f"{tmp_path}:{tmp_path}:ro", f"{tmp_path}/runs:{tmp_path}/runs"]


def test_the_targets_of_links_are_seen_too(tmp_path):
    """As in the hub's cache, where a snapshot is a folder of links."""
    (tmp_path / "store/blobs").mkdir(parents=True)
    (tmp_path / "store/blobs/1").touch()
    (tmp_path / "store/snapshot").mkdir()
    (tmp_path / "store/snapshot/config.json").symlink_to("../blobs/1")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/a").symlink_to(tmp_path / "store/snapshot")
    sources = {mount.partition(":")[0] for mount in mounts(values_in(tmp_path))}
    assert sources >= {f"{tmp_path}/{path}" for path in ("models/a", "store/snapshot", "store/blobs")}


def test_an_adapter_brings_its_base_model(tmp_path):
    for name, base in (("a", "b"), ("b", "c")):
        (tmp_path / "models" / name).mkdir(parents=True)
        config = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "models" / base)}
        (tmp_path / "models" / name / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "models/c").mkdir()
    sources = {mount.partition(":")[0] for mount in mounts(values_in(tmp_path))}
    assert sources >= {f"{tmp_path}/models/{name}" for name in "abc"}


def test_caches_of_the_hub_are_seen_if_they_are_there(tmp_path):
    (tmp_path / "hf/hub").mkdir(parents=True)
    mount = f"{tmp_path}/hf/hub:{tmp_path}/hf/hub"
    assert mount in mounts(values_in(tmp_path), HF_HOME=str(tmp_path / "hf"))
    values = changed(values_in(tmp_path), "cluster.env.HF_HOME", str(tmp_path / "hf"))
    assert mount in mounts(values)
    values["model"]["path"] = "hub:owner/name"
    assert not any("hub:owner" in mount for mount in mounts(values))


def test_the_users_own_come_last(tmp_path):
    values = changed(values_in(tmp_path), "cluster.container.mounts", ["/scratch", "/a:/b:ro"])
    assert mounts(values)[-2:] == ["/scratch:/scratch", "/a:/b:ro"]


def test_every_path_of_a_spec_is_looked_at(tmp_path):
    judge = {"kind": "local", "model": "/j", "template": "/t.txt"}
    evaluate = {"prompts": "/p.json", "outputs": {"x": "/o.json"}, "leaderboards": ["/l.csv"], "judge": judge}
    values = values_in(tmp_path, evaluate=evaluate, benchmark={"tasks": ["a"], "include_path": "/tasks"})
    values["data"].update(validation=["/v.jsonl"], template="/t.jinja")
    found = dict(inputs_of(parse_spec(values), "train"))
    expected = {
        "data.validation": "/v.jsonl",
        "data.template": "/t.jinja",
        "evaluate.prompts": "/p.json",
        "evaluate.outputs": "/o.json",
        "evaluate.leaderboards": "/l.csv",
        "evaluate.judge.model": "/j",
        "evaluate.judge.template": "/t.txt",
        "benchmark.include_path": "/tasks",
    }
    assert found.items() >= expected.items()


def test_the_key_is_seen_by_the_judge_alone(tmp_path):
    judge = {"kind": "openai", "model": "m", "api_key_file": "/home/me/key"}
    spec = parse_spec(values_in(tmp_path, evaluate={"prompts": "/p.json", "judge": judge}))
    assert ("evaluate.judge.api_key_file", "/home/me/key") in inputs_of(spec, "judge")
    assert "/home/me/key" not in dict(inputs_of(spec, "train")).values()


@pytest.mark.parametrize("name", ["a,b.jsonl", "a:b.jsonl", "a\nb.jsonl"])
def test_what_no_mount_can_name_is_refused(tmp_path, name):
    values = values_in(tmp_path)
    values["data"]["train"] = [f"{tmp_path}/{name}"]
    with pytest.raises(InputError, match=r"data\.train: a container's mount cannot name"):
        mounts(values)


def test_the_whole_filesystem_is_not_mounted(tmp_path):
    values = values_in(tmp_path)
    values["data"]["train"] = ["/*.jsonl"]
    with pytest.raises(InputError, match=r"data\.train: all of / would have to be mounted"):
        mounts(values)


def test_what_lies_within_another_is_left_out():
    assert merged(["/a/b", "/a-b", "/a", "/a/b", "/b"]) == ["/a", "/a-b", "/b"]
