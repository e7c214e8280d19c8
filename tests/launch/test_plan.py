"""`plan`: a light command whose figures before preprocessing and after it agree. Through the real script."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from hpcsft.data.preprocess import preprocess
from hpcsft.model_shape import ModelShape
from tests.launch.command import launch, loaded_by_look
from tests.prepared import begun, new_run


@pytest.fixture
def spec_file(spec_values, tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec_values))
    return path


def planned(spec_file, *options, cwd):
    done = launch("plan.py", spec_file, "--json", *options, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_people_see_memory_work_and_disk(spec_file, tmp_path):
    done = launch("plan.py", spec_file, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for title in ("Memory of one process", "Model states of one process", "Work", "Disk"):
        assert f"\n{title}" in done.stdout
    assert "all 120 conversations" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"spec.json"}, "nothing is written"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_terminal_that_knows_only_ascii_is_no_problem(options, spec_file, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = launch("plan.py", spec_file, *options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


def test_what_is_there_counts_instead_of_an_estimate(spec_values, spec_file, tmp_path):
    told = planned(spec_file, cwd=tmp_path)["work"]
    preprocess(begun(new_run(spec_values), "preprocess"))
    found = planned(spec_file, cwd=tmp_path)["work"]
    assert (told["exact"], found["exact"]) == (False, True)
    assert told["tokens"] == pytest.approx(found["tokens"], rel=0.05)
    assert abs(told["steps"] - found["steps"]) <= 2


def test_gpus_and_utilisation_are_chosen(spec_file, tmp_path):
    settings = ["--set", "cluster.train.gpus_per_node=2", "--set", "model.dtype=bfloat16"]
    low, high = (
        planned(spec_file, *settings, "--gpu", gpu, "--mfu", mfu, "--quota", 1, cwd=tmp_path)
        for gpu, mfu in (("a100-40gb", 0.2), ("h100", 0.4))
    )
    assert low["work"]["gpu_hours"] / high["work"]["gpu_hours"] == pytest.approx(2 * 989.4 / 312)
    assert low["disk"]["quota_bytes"] == 10**9


def test_weights_of_either_kind_are_counted(spec_values, spec_file, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "pickled", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(load_file(tiny_model / "model.safetensors"), folder / "pytorch_model.bin")
    models = (tiny_model, folder)
    facts = [planned(spec_file, "--set", f"model.path={model}", cwd=tmp_path)["model"] for model in models]
    sizes = [model.pop("weights_bytes") for model in facts]
    assert sizes[1] == (folder / "pytorch_model.bin").stat().st_size
    assert facts[0] == facts[1]
    assert ModelShape.model_validate(facts[1]["shape"]).num_parameters == facts[1]["num_parameters"]


def test_it_is_light(spec_file, tmp_path):
    """Without torch it starts in a third of the time."""
    assert loaded_by_look("plan.py", spec_file, tmp_path) == "0 []"


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("model.path=/no/model", "error: model.path: no such folder: /no/model"),
        ('data.train=["/no/data.jsonl"]', "error: data.train: no such file: /no/data.jsonl"),
        ("data.masks=1", "error: data.masks: unknown field"),
        ("data.template=tokenizer", "error: data.template: "),
        ("train.global_batch_size=1", "error: train.global_batch_size: "),
        ("data.filter.min_turns=99", "error: data.train: no training row is left of the first 120 rows"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(override, error, spec_file, tmp_path):
    done = launch("plan.py", spec_file, "--set", override, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(error) and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--mfu", "0", "expected a share above 0 and up to 1, such as 0.4; given '0'"),
        ("--mfu", "40", "expected a share above 0 and up to 1"),
        ("--mfu", "nan", "expected a share above 0 and up to 1"),
        ("--quota", "-1", "expected"),
        ("--quota", "lots", "expected a size in GB; given 'lots'"),
        ("--gpu", "a1000", "invalid choice: 'a1000'"),
    ],
)
def test_options_are_checked(option, value, told, spec_file, tmp_path):
    done = launch("plan.py", spec_file, option, value, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
