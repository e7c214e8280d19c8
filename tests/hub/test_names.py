"""Guards that a name on the hub means what it says, and that nothing else passes for one: it becomes part of paths."""

from __future__ import annotations

import pytest

from hpcsft.errors import InputError, SpecError
from hpcsft.hub.names import DataName, ModelName, is_commit
from hpcsft.spec import parse_spec

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hub:a/b", ("a/b", None)),
        ("hub:meta-llama/Llama-2-7b-hf@main", ("meta-llama/Llama-2-7b-hf", "main")),
        ("hub:a/b.c@refs/pr/3", ("a/b.c", "refs/pr/3")),
        (f"hub:a/b@{COMMIT}", ("a/b", COMMIT)),
    ],
)
def test_the_parts_of_a_models_name(text, parts):
    assert ModelName.parse(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "hub:",
        "hub:a",
        "hub:a/b/c",
        "hub:a/b:train",
        "hub:a/b@",
        "hub:../b",
        "hub:a/..",
        "hub:a/b@../../x",
        "hub:a/b@-x",
    ],
)
def test_what_is_no_models_name(text):
    with pytest.raises(ValueError, match=r"a model on the hub is hub:OWNER/NAME\[@REVISION\], such as"):
        ModelName.parse(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hub:a/b", ("a/b", None, None, "train")),
        ("hub:HuggingFaceH4/ultrachat_200k:train_sft", ("HuggingFaceH4/ultrachat_200k", None, None, "train_sft")),
        ("hub:a/b.c-d/en-US@v1.0:test", ("a/b.c-d", "en-US", "v1.0", "test")),
        ("hub:a/b@refs/pr/3", ("a/b", None, "refs/pr/3", "train")),
    ],
)
def test_the_parts_of_a_data_sets_name(text, parts):
    name = DataName.parse(text)
    assert name == parts
    assert DataName.parse(name.pinned(COMMIT, "en")) == name._replace(revision=COMMIT, config="en")


@pytest.mark.parametrize(
    "text", ["hub:", "hub:a", "hub:a/b/c/d", "hub:a/b:", "hub:a/b@", "hub:a/b:x y", "hub:a/b;c", "hub:a/b@x/../y"]
)
def test_what_is_no_data_sets_name(text):
    with pytest.raises(InputError, match="not the name of a data set on the hub") as caught:
        DataName.parse(text)
    assert "hub:OWNER/NAME[/CONFIG][@REVISION][:SPLIT]" in caught.value.hint


def test_only_forty_digits_are_a_commit():
    assert is_commit(COMMIT)
    assert not any(is_commit(text) for text in (None, "main", COMMIT[:12], COMMIT.upper(), f"{COMMIT}\n"))


def test_a_name_that_is_none_is_refused_with_its_field(spec_values):
    spec_values["model"]["path"] = "hub:llama"
    with pytest.raises(SpecError) as caught:
        parse_spec(spec_values)
    assert caught.value.problems[0].path == "model.path"
    assert "hub:OWNER/NAME[@REVISION]" in caught.value.problems[0].message


def test_the_local_judges_name_too(spec_values):
    spec_values["evaluate"]["judge"]["model"] = "hub:judge"
    with pytest.raises(SpecError) as caught:
        parse_spec(spec_values)
    assert caught.value.lines()[0].startswith("error: evaluate.judge.model: a model on the hub is hub:OWNER/NAME")
    assert caught.value.lines()[0].endswith("given 'hub:judge'")


def test_names_stay_where_paths_become_absolute(spec_values):
    spec_values["model"]["path"] = "hub:a/b"
    spec_values["evaluate"]["judge"]["model"] = "hub:a/judge@v1"
    spec_values["data"].update(train=["hub:a/c:train_sft"], validation=["hub:a/c:test_sft"])
    spec = parse_spec(spec_values)
    assert (spec.model.path, spec.evaluate.judge.model) == ("hub:a/b", "hub:a/judge@v1")
    assert (spec.data.train, spec.data.validation) == (["hub:a/c:train_sft"], ["hub:a/c:test_sft"])
