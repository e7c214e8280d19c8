"""How mistakes in a spec are explained: all at once, each with its place, what was given and what would be right.

Most specs are wrong the first time. One round of corrections is the aim, not one per mistake.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcsft.errors import SpecError
from hpcsft.spec import ExperimentSpec, load_spec, parse_spec
from tests.spec.values import changed, minimal


@pytest.fixture
def load(tmp_path):
    """Load a spec from the text or the values of a file, with overrides."""

    def load_from(content: Any, *overrides: str) -> ExperimentSpec:
        path = tmp_path / "spec.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return load_spec(str(path), overrides)

    return load_from


def lines_of(function: Any, *arguments: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        function(*arguments)
    return caught.value.lines()


def errors_of(function: Any, *arguments: Any) -> list[str]:
    return [line for line in lines_of(function, *arguments) if line.startswith("error: ")]


def test_a_good_spec_is_loaded(load):
    assert load(minimal(train={"epochs": 5})).train.epochs == 5


def test_all_errors_at_once(load):
    wrong = {
        "name": "a b",
        "modle": {},
        "data": {"train": [], "format": "ultra", "max_length": 3},
        "train": {"epochs": 0, "learning_rate": "fast", "checkpoint": {"every_steps": -1}},
        "evaluate": {"judge": {"kind": "human"}},
        "cluster": {"train": {"nodes": 0, "time": "soon"}},
    }
    assert {line.split(": ")[1] for line in errors_of(load, wrong)} == {
        "name",
        "modle",
        "model",
        "data.train",
        "data.format",
        "data.max_length",
        "train.epochs",
        "train.learning_rate",
        "train.checkpoint.every_steps",
        "evaluate.prompts",
        "evaluate.judge.kind",
        "cluster.train.nodes",
        "cluster.train.time",
    }
    assert len(errors_of(load, wrong)) == 13, "and each but once"


def test_what_spans_sections_is_told_at_once_too():
    wrong = minimal(train={"offload": "all"}, evaluate={"prompts": "p.json", "checkpoints": ["epoch-9"]})
    assert [line.split(": ")[1] for line in errors_of(parse_spec, wrong)] == ["evaluate.checkpoints", "train.offload"]


@pytest.mark.parametrize(
    ("values", "error", "hint"),
    [
        (minimal(evalute={}), "evalute: unknown field", "did you mean evaluate?"),
        (minimal(train={"epoch": 1}), "train.epoch: unknown field", "did you mean train.epochs?"),
        (
            minimal(cluster={"train": {"nodse": 1}}),
            "cluster.train.nodse: unknown field",
            "did you mean cluster.train.nodes?",
        ),
        (
            minimal(evaluate={"prompts": "p", "judge": {"modle": "x"}}),
            "evaluate.judge.modle: unknown field",
            "did you mean evaluate.judge.model?",
        ),
        (
            minimal(model={"path": "m", "zzz": 1}),
            "model.zzz: unknown field",
            "known: attention, dtype, export, gradient_checkpointing, lora, path",
        ),
    ],
)
def test_an_unknown_field_with_the_nearest_name(values, error, hint):
    assert lines_of(parse_spec, values) == [f"error: {error}", f"hint: {hint}"]


@pytest.mark.parametrize(
    ("values", "error", "hint"),
    [
        (
            minimal(train={"scheduler": "cosin"}),
            "train.scheduler: must be 'cosine', 'linear' or 'constant'; given \"cosin\"",
            "did you mean 'cosine'?",
        ),
        (
            minimal(model={"path": "m", "dtype": "float16"}),
            "model.dtype: must be 'bfloat16' or 'float32'; given \"float16\"",
            "did you mean 'bfloat16'?",
        ),
        (minimal(train={"zero_stage": 4}), "train.zero_stage: must be 0, 1, 2 or 3; given 4", None),
        (
            minimal(cluster={"kind": "pbs"}),
            "cluster.kind: must be 'auto', 'slurm' or 'local'; given \"pbs\"",
            None,
        ),
    ],
)
def test_a_wrong_word_with_the_nearest_one(values, error, hint):
    assert lines_of(parse_spec, values) == [f"error: {error}"] + ([f"hint: {hint}"] if hint else [])


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (minimal(train={"epochs": 0}), "train.epochs: must be greater than 0; given 0"),
        (minimal(train={"epochs": 1.5}), "train.epochs: must be a whole number"),
        (minimal(train={"learning_rate": -1}), "train.learning_rate: must be greater than 0; given -1"),
        (minimal(data={"train": "d.jsonl"}), 'data.train: must be a list; given "d.jsonl"'),
        (minimal(data={"train": ["a", 3]}), "data.train[1]: must be a text; given 3"),
        (minimal(data={"train": ["a"], "max_length": 8}), "data.max_length: must be greater than or equal to 16"),
        (minimal(data={"train": ["a"], "sample": 0}), "data.sample: must be greater than 0; given 0"),
        (
            minimal(data={"train": ["a"], "sample": True}),
            "data.sample: must be a whole number or must be a number; given true",
        ),
        (minimal(data=[]), "data: must be an object"),
        (minimal(cluster={"env": {"A": 3}}), "cluster.env.A: must be a text; given 3"),
        (minimal(evaluate={}), "evaluate: prompts is missing; leave the section out for a run without evaluation"),
    ],
)
def test_a_wrong_value_with_what_was_given(values, error):
    (line,) = lines_of(parse_spec, values)
    assert line.startswith(f"error: {error}")


def test_a_value_that_may_be_of_two_kinds_is_one_mistake():
    """pydantic reports each kind apart, under a path with its own names for them."""
    (line,) = errors_of(parse_spec, minimal(data={"train": ["a"], "validation": "none"}))
    assert line.startswith("error: data.validation: ") and line.endswith('; given "none"')
    assert " or must be a list" in line


def test_a_missing_section_comes_with_its_meaning():
    assert lines_of(parse_spec, {"data": {"train": ["d.jsonl"]}}) == [
        "error: model: required, and missing",
        "hint: The model to fine-tune.",
    ]
    lines = lines_of(parse_spec, minimal(evaluate={"shards": 2}))
    assert lines[0] == "error: evaluate.prompts: required, and missing"
    assert "AlpacaEval's format" in lines[1]


def test_long_values_are_cut_off():
    (line,) = lines_of(parse_spec, minimal(name="x" * 1000))
    assert len(line) < 250 and line.endswith("...")


def test_a_key_given_by_mistake_is_not_printed():
    """People paste the key where its variable's name belongs, and terminals of clusters are logged."""
    secret = "sk-abcdefghijklmnop"
    lines = lines_of(parse_spec, minimal(evaluate={"prompts": "p", "judge": {"api_key_env": secret}}))
    assert lines[0].startswith("error: evaluate.judge.api_key_env: the name of an environment variable in capitals")
    assert not any(secret in line for line in lines)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("evaluate.judge", {"api_key_file": "sk-abcdefghijklmnop"}),
        ("evaluate.judge", {"base_url": "https://me:sk-abcdefghijklmnop@host"}),
        ("evaluate.judge", {"api_key_file": "/sk-abcdefghijklmnop", "api_key_env": "K"}),
        ("cluster", {"env": {"HF_TOKEN": "sk-abcdefghijklmnop"}}),
        ("cluster", {"setup": ["export HF_TOKEN=sk-abcdefghijklmnop"]}),
        ("notify", {"webhook": "hooks/sk-abcdefghijklmnop"}),
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_and_not_printed(path, value):
    lines = lines_of(parse_spec, changed(minimal(evaluate={"prompts": "p"}), path, value))
    assert lines[0].startswith(f"error: {path}") and not any("sk-abc" in line for line in lines)


@pytest.mark.parametrize("name", ["openai_api_key", "OPENAI API KEY", "OPENAI-KEY"])
def test_the_name_of_a_variable_in_capitals(name):
    (line,) = lines_of(parse_spec, minimal(evaluate={"prompts": "p", "judge": {"api_key_env": name}}))
    assert "the name of an environment variable in capitals, never the key itself" in line


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"model": {"path": "a\\ud800"}, "data": {"train": ["d"]}}', "model.path"),
        ('{"model": {"path": "a"}, "data": {"train": ["d", "\\udc00"]}}', "data.train[1]"),
        ('{"model": {"path": "a"}, "data": {"train": ["d"]}, "cluster": {"env": {"A\\ud800": "1"}}}', "cluster.env"),
    ],
)
def test_half_a_character_is_refused(load, text, path):
    """JSON can say it, and no file, no argument and no terminal can hold it."""
    (line, _) = lines_of(load, text)
    assert line == f"error: {path}: half a character (\\ud800 to \\udfff) is no text"


def test_a_duplicated_key_is_refused(load):
    """JSON takes the last of the two in silence."""
    (line,) = lines_of(load, '{"model": {"path": "a", "path": "b"}, "data": {"train": ["d"]}}')
    assert line.endswith("spec.json: the key 'path' stands twice in one object")


def test_no_json_with_its_line_and_column(load):
    (line,) = lines_of(load, '{\n  "name": "a",\n  "seed": 1,\n}')
    assert "spec.json, line " in line and "not valid JSON: " in line
    (line,) = lines_of(load, '{\n  "name": oops\n}')
    assert "spec.json, line 2, column 11: not valid JSON: Expecting value" in line


@pytest.mark.parametrize(("text", "given"), [("[]", "[]"), ("3", "3"), ('"a"', '"a"'), ("null", "null")])
def test_no_object(text, given, load):
    (line,) = lines_of(load, text)
    assert line.endswith(f"spec.json: a spec is a JSON object, this is {given}")


def test_a_file_that_cannot_be_read(tmp_path):
    path = tmp_path / "none.json"
    assert lines_of(load_spec, str(path)) == [f"error: {path}: cannot be read: No such file or directory"]
    assert lines_of(load_spec, str(tmp_path)) == [f"error: {tmp_path}: cannot be read: Is a directory"]
    path.write_bytes(b'{"name": "\xff"}')
    assert lines_of(load_spec, str(path)) == [f"error: {path}: cannot be read: not UTF-8 text"]


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.learning_rate=2e-5", "train.learning_rate", 2e-5),
        ("seed=7", "seed", 7),
        ("name=llama-7b", "name", "llama-7b"),
        ('name="7"', "name", "7"),
        ("data.packing=false", "data.packing", False),
        ("data.sample=null", "data.sample", None),
        ('evaluate.checkpoints=["base","epoch-1"]', "evaluate.checkpoints", ["base", "epoch-1"]),
        ("train.checkpoint.every_steps=5", "train.checkpoint.every_steps", 5),
        ("cluster.train.nodes=4", "cluster.train.nodes", 4),
        ("cluster.env.OMP_NUM_THREADS='4'", "cluster.env", {"OMP_NUM_THREADS": "'4'"}),
        ("cluster.env.URL=http://a/?b=c", "cluster.env", {"URL": "http://a/?b=c"}),
        ('train.checkpoint={"keep_last": 9}', "train.checkpoint.keep_last", 9),
    ],
)
def test_set_overrides_a_field(override, path, value, load):
    """Also where the spec has no such section yet."""
    found: Any = load(minimal(evaluate={"prompts": "p.json"}), override)
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value and type(found) is type(value)


def test_the_last_set_wins(load):
    assert load(minimal(seed=1), "seed=2", "seed=3").seed == 3


@pytest.mark.parametrize("override", ["train", "=3", "", "train.epochs"])
def test_set_without_a_path_or_a_value(override, load):
    assert lines_of(load, minimal(), override) == [
        f"error: --set {override}: not of the form path=value",
        "hint: write --set train.learning_rate=2e-5",
    ]


def test_set_into_what_is_no_section(load):
    assert lines_of(load, minimal(name="a"), "name.x=1") == ['error: --set name.x=1: name is no section but "a"']
    assert lines_of(load, minimal(), "data.train.0=x") == [
        'error: --set data.train.0=x: train is no section but ["d.jsonl"]'
    ]


def test_set_with_an_unknown_field_is_explained_like_one_in_the_file(load):
    assert lines_of(load, minimal(), "train.lerning_rate=1") == [
        "error: train.lerning_rate: unknown field",
        "hint: did you mean train.learning_rate?",
    ]


def test_nan_is_refused_wherever_it_stands(load):
    """Python reads it as JSON; nobody else would, and the run directory could not hold it."""
    assert errors_of(load, '{"model": {"path": "m"}, "data": {"train": ["d"]}, "train": {"deepspeed": {"a": NaN}}}')


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("launch/specs/*.json")), ids=lambda p: p.name)
def test_errors_name_the_file(path, tmp_path):
    """The source of a SpecError is what `str()` shows in a log."""
    broken = tmp_path / path.name
    broken.write_text(path.read_text()[:-3])
    with pytest.raises(SpecError, match=f"{path.name}: 1 problem in the spec"):
        load_spec(str(broken))
