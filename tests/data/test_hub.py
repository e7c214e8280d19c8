"""Guards that the name of a data set on the hub means what it says, that it opens from the cache without a network, and
that a user without either learns the exact command that fetches it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hpcsft.data import hub
from hpcsft.data.hub import HubName, open_hub
from hpcsft.data.readers import index_file, read_file, state_of
from hpcsft.errors import InputError
from hpcsft.spec.data import HUB

ROWS = [{"data": [f"question {number}", f"answer {number}"]} for number in range(20)]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hub:a/b", ("a/b", None, None, "train")),
        ("hub:HuggingFaceH4/ultrachat_200k:train_sft", ("HuggingFaceH4/ultrachat_200k", None, None, "train_sft")),
        ("hub:a/b.c-d/en-US@v1.0:test", ("a/b.c-d", "en-US", "v1.0", "test")),
        ("hub:a/b@refs/pr/3", ("a/b", None, "refs/pr/3", "train")),
    ],
)
def test_the_parts_of_a_name(text, parts):
    assert HubName.parse(text) == parts


@pytest.mark.parametrize("text", ["hub:", "hub:a", "hub:a/b/c/d", "hub:a/b:", "hub:a/b@", "hub:a/b:x y", "hub:a/b;c"])
def test_what_is_no_name(text):
    with pytest.raises(InputError, match="not the name of a data set on the hub") as caught:
        HubName.parse(text)
    assert "hub:OWNER/NAME[/CONFIG][@REVISION][:SPLIT]" in caught.value.hint


def test_the_spec_and_the_readers_mean_the_same_names():
    assert HUB == hub.PREFIX


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache as `load_dataset("owner/some")` leaves it, and no network."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    made = datasets.load_dataset("json", data_files=str(source), cache_dir=str(tmp_path / "made"), split="train")
    folder = tmp_path / "cache" / "owner___some" / "default" / "0.0.0" / COMMIT
    shutil.copytree(Path(made.cache_files[0]["filename"]).parent, folder)
    (folder / "json-train.arrow").rename(folder / "some-train.arrow")
    about = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**about, "dataset_name": "some"}))
    open_hub.cache_clear()
    yield folder
    open_hub.cache_clear()


@pytest.mark.parametrize("name", ["hub:owner/some", "hub:owner/some:train", f"hub:owner/some/default@{COMMIT}"])
def test_a_cached_data_set_needs_no_network(cache, name):
    assert [row.parse() for row in read_file(name)] == ROWS
    assert [(row.file, row.number, row.parse()) for row in read_file(name, start=18)] == [
        (name, 19, ROWS[18]),
        (name, 20, ROWS[19]),
    ]
    index = index_file(name, 8)
    assert (index.rows, [mark.number for mark in index.marks]) == (20, [1, 9, 17])
    assert state_of(name) == state_of("hub:owner/some")


def test_what_is_not_cached_comes_with_the_command_that_fetches_it(cache):
    with pytest.raises(InputError, match=r"^hub:owner/none/en@v1:test: cannot be opened: Couldn't reach") as caught:
        index_file("hub:owner/none/en@v1:test", 5)
    command = """python -c "import datasets; datasets.load_dataset('owner/none', 'en', split='test', revision='v1')\""""
    assert caught.value.hint.endswith(command) and "login node" in caught.value.hint


def test_an_unknown_split_is_named(cache):
    with pytest.raises(InputError, match=r'some:test: cannot be opened: Unknown split "test".*train'):
        list(read_file("hub:owner/some:test"))


def test_another_revision_in_the_cache_is_not_taken_for_the_one_that_was_asked_for(cache):
    with pytest.raises(InputError, match=f"the hub does not answer, and the cache holds revision {COMMIT}") as caught:
        open_hub("hub:owner/some@v2")
    assert caught.value.hint.startswith("name that one, or fetch it")
