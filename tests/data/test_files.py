"""Guards that a pattern stands for all its files, each once and in one order, that what is missing or unknown is named,
and that a changed file is noticed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from hpcsft.data.files import find_files, saved_files, state_of
from hpcsft.data.readers import read_file
from hpcsft.errors import InputError
from tests.data.made_files import FILES, write, write_saved

ROWS = [{"data": [f"question {number}", f"answer {number}"]} for number in range(5)]


def refused(reason: str, *patterns: object, where: str = "data.train") -> str:
    with pytest.raises(InputError, match=reason) as caught:
        find_files([str(pattern) for pattern in patterns], where)
    assert caught.value.message.startswith(f"{where}: ") and len(caught.value.message.splitlines()) == 1
    return caught.value.hint or ""


@pytest.fixture
def splits(tmp_path) -> Path:
    """A folder with the splits `test` and `train`, as `datasets` saves them."""
    from datasets import Dataset, DatasetDict

    DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[:2])).save_to_disk(tmp_path / "splits")
    return tmp_path / "splits"


def test_globs_are_sorted_and_no_file_comes_twice(tmp_path):
    names = ["10.jsonl", "2.jsonl", "a.json", "b.jsonl"]
    for name in reversed(names):
        write(tmp_path / name, ROWS)
    paths = [str(tmp_path / name) for name in names]
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    deep = write(tmp_path / "deep" / "deeper" / "c.jsonl", ROWS)
    assert find_files([str(tmp_path / "*.json*")], "data.train") == paths
    assert find_files([paths[3], str(tmp_path / "*.jsonl")], "data.train") == [paths[3], paths[0], paths[1]]
    assert find_files([str(tmp_path / "**" / "c.*")], "data.train") == [deep]


def test_a_folder_stands_for_all_data_inside(tmp_path):
    (tmp_path / "data" / "b").mkdir(parents=True)
    expected = [write(tmp_path / "data" / name, ROWS) for name in FILES] + [write(tmp_path / "data/b/x.jsonl", ROWS)]
    expected.append(write_saved(tmp_path / "data" / "saved", ROWS))
    for other in (".hidden.jsonl", "README.md", "table.csv", "dataset_infos.json"):
        (tmp_path / "data" / other).write_text("x")
    assert find_files([str(tmp_path / "data")], "data.train") == sorted(expected)
    assert find_files([str(tmp_path / "d*")], "data.validation") == sorted(expected)


def test_links_are_followed_and_never_in_a_circle(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere" / "a.jsonl", ROWS)
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "data")
    assert find_files([str(tmp_path / "data")], "data.train") == [str(tmp_path / "data" / "link" / "a.jsonl")]


def test_a_link_to_a_neighbour_doubles_nothing(tmp_path):
    """Releases are kept as v1, v2 and latest -> v2; what is no link gives the name, wherever the link sorts."""
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    (data / "v1").mkdir()
    (tmp_path / "other" / "sub").mkdir(parents=True)
    expected = [write(data / "v1" / "a.jsonl", ROWS), write(data / "z.jsonl", ROWS)]
    write(tmp_path / "other" / "sub" / "b.jsonl", ROWS)
    write_saved(data / "saved", ROWS)
    for link, target in {
        "latest": data / "v1",
        "deep/up": data / "v1",
        "a.jsonl": data / "z.jsonl",
        "copy": data / "saved",
        "x1": tmp_path / "other",
        "x2": tmp_path / "other",
    }.items():
        (data / link).symlink_to(target)
    expected += [str(data / "saved"), str(data / "x1" / "sub" / "b.jsonl")]
    assert find_files([str(data)], "data.train") == sorted(expected)


@pytest.mark.parametrize("name", [b"caf\xe9.jsonl", b"caf\xe9/a.jsonl"])
@pytest.mark.parametrize("pattern", ["data", "data/**/*.jsonl"])
def test_a_name_that_is_no_text_is_refused(tmp_path, name, pattern):
    """It could be opened, and would then stop a job where the name is written down."""
    path = tmp_path / "data" / os.fsdecode(name)
    path.parent.mkdir(parents=True)
    write(path, ROWS)
    hint = refused(r"/caf\\udce9.*: the name is not UTF-8$", tmp_path / pattern)
    assert hint.startswith("rename it")
    path.rename(tmp_path / "data" / "café\u3000.jsonl")
    assert find_files([str(tmp_path / "data")], "data.train") == [str(tmp_path / "data" / "café\u3000.jsonl")]


def test_a_saved_data_set_stands_for_itself(tmp_path):
    folder = write_saved(tmp_path / "saved", ROWS)
    assert find_files([folder], "data.train") == [folder]
    assert find_files([str(tmp_path / "s*")], "data.validation") == [folder]


def test_of_saved_splits_training_takes_train(splits):
    (file,) = find_files([str(splits)], "data.train")
    assert [row.parse() for row in read_file(file)] == ROWS
    assert find_files([str(splits / "test")], "data.validation") == [str(splits / "test")]


def test_of_saved_splits_others_have_to_be_named(splits):
    hint = refused("splits: there are several splits: test, train$", splits, where="data.validation")
    assert hint == f"name the subfolder of one: {splits}/test"
    shutil.rmtree(splits / "train")
    refused("splits: there are several splits: test$", splits)
    shutil.rmtree(splits / "test")
    assert "SPLIT" in refused(r"splits: there are several splits: \(none\)", splits)


def test_a_path_that_looks_like_a_glob_is_a_path(tmp_path):
    file = write(tmp_path / "part[1].jsonl", ROWS)
    assert find_files([file], "data.train") == [file]


def test_what_cannot_be_found_or_read_is_named(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "table.csv").write_text("a,b\n")
    os.mkfifo(tmp_path / "pipe.jsonl")
    refused(r"no such file: .*nothing-\*\.jsonl", tmp_path / "nothing-*.jsonl")
    assert ".jsonl, .jsonl.gz, .jsonl.zst, .json, " in refused("csv: unknown kind of file", tmp_path / "table.csv")
    assert "save_to_disk" in refused(r"folder\.jsonl: no data inside", tmp_path / "folder.jsonl")
    refused(r"pipe\.jsonl: cannot be read", tmp_path / "pipe.jsonl")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    refused(r"gone\.jsonl: cannot be read", tmp_path / "gone.jsonl")


def test_a_folder_that_may_not_be_entered_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    assert "may you read it" in refused("cannot be read: Permission denied", tmp_path)
    (tmp_path / "dataset_dict.json").write_text("{}")
    refused("cannot be read: Permission denied", tmp_path)


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    write(tmp_path / "a.jsonl", ROWS)
    for name in ("loop", ".loop"):
        (tmp_path / name).symlink_to(tmp_path / name)
    refused(r"/loop: cannot be read: Too many levels of symbolic links", tmp_path)
    (tmp_path / "loop").unlink()
    assert find_files([str(tmp_path)], "data.train") == [str(tmp_path / "a.jsonl")]


def test_names_of_the_hub_are_kept_and_their_spelling_checked():
    names = ["hub:a/b", "hub:a/b/c@main:test"]
    assert find_files([*names, names[0]], "data.train") == names
    assert "hub:OWNER/NAME" in refused("hub:ultrachat: not the name of a data set on the hub", "hub:ultrachat")


@pytest.mark.parametrize("name", [*FILES, "saved"])
def test_a_changed_file_has_another_state(tmp_path, name):
    path = tmp_path / name
    write_saved(path, ROWS) if name == "saved" else write(path, ROWS)
    part = next(path.glob("*.arrow")) if name == "saved" else path
    first = state_of(str(path))
    assert state_of(str(path)) == first
    os.utime(part, ns=(1, 1))
    second = state_of(str(path))
    part.write_bytes(part.read_bytes() + b"\n")
    os.utime(part, ns=(1, 1))
    assert len({first, second, state_of(str(path))}) == 3


def test_the_state_of_nothing(tmp_path):
    with pytest.raises(InputError, match="no: cannot be read: No such file"):
        state_of(str(tmp_path / "no"))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("{", "state.json: cannot be read: Expecting"),
        ("[1]", "state.json: no list of files inside"),
        ('{"_data_files": 3}', "state.json: no list of files inside"),
        ('{"_data_files": [{}]}', "state.json: no list of files inside"),
        ('{"_data_files": [{"filename": "a.arrow"}]}', "saved: a.arrow is missing"),
    ],
)
def test_a_saved_data_set_that_is_not_whole_is_named(tmp_path, state, reason):
    folder = write_saved(tmp_path / "saved", ROWS)
    assert len(saved_files(folder)) == 3
    (tmp_path / "saved" / "state.json").write_text(state)
    for look in (saved_files, state_of):
        with pytest.raises(InputError, match=reason):
            look(folder)


def test_a_file_that_several_patterns_find_is_read_once(tmp_path):
    (tmp_path / "v1").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "v1" / name).write_text('{"data": ["q", "a"]}\n')
    (tmp_path / "latest").symlink_to("v1")
    wanted = [str(tmp_path / "v1" / name) for name in ("b.jsonl", "a.jsonl")]
    found = find_files(
        [wanted[0], str(tmp_path / "*" / "*.jsonl"), str(tmp_path), str(tmp_path / "latest")], "data.train"
    )
    assert len(found) == 2 and [str(Path(file).resolve()) for file in found] == wanted
