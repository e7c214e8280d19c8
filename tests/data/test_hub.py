"""Guards that a data set of the hub opens from the cache without a network, at the very commit that is named, and that
a user without either learns the exact command that fetches it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from hpcsft.data.hub import open_hub
from hpcsft.data.readers import index_file, read_file, state_of
from hpcsft.errors import InputError

ROWS = [{"data": [f"question {number}", f"answer {number}"]} for number in range(20)]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


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


def test_a_commit_is_taken_though_a_newer_one_is_in_the_cache(cache):
    newer = cache.with_name("f" * 40)
    shutil.copytree(cache, newer)
    os.utime(newer, (2**31, 2**31))
    about = json.loads((newer / "dataset_info.json").read_text())
    (newer / "dataset_info.json").write_text(json.dumps({**about, "description": "newer"}))
    assert open_hub("hub:owner/some").info.description == "newer"
    assert open_hub(f"hub:owner/some@{COMMIT}").info.description != "newer"


def test_a_commit_of_which_the_cache_has_several_configurations(cache):
    hard = shutil.copytree(cache.parents[1], cache.parents[2] / "hard") / "0.0.0" / COMMIT / "dataset_info.json"
    hard.write_text(json.dumps({**json.loads(hard.read_text()), "config_name": "hard"}))
    assert open_hub(f"hub:owner/some/default@{COMMIT}").num_rows == 20
    with pytest.raises(InputError, match="multiple 'owner/some' configurations in the cache"):
        open_hub(f"hub:owner/some@{COMMIT}")
