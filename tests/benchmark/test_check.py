"""Guards the night in the queue: what cannot be run is refused on the login node, with what to do, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcsft.benchmark.check import benchmark_problems, needs_packaged_tasks
from hpcsft.spec import parse_spec


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch) -> Path:
    """A package with the task `packaged`, whose rows are on the hub, and an empty cache of data sets."""
    folder = tmp_path / "lm_eval" / "tasks"
    folder.mkdir(parents=True)
    (folder / "packaged.yaml").write_text("task: packaged\ndataset_path: Owner/SomeData\ndataset_name: hard\n")
    monkeypatch.setattr("hpcsft.benchmark.check.packaged_tasks", lambda: folder)
    for name in ("HF_DATASETS_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return folder


def lines(*tasks: str, include_path: Path | None = None, cluster: dict[str, Any] | None = None) -> list[str]:
    """What submit would print about a spec with these tasks."""
    section = {"tasks": list(tasks), "include_path": str(include_path) if include_path else None}
    values = {"model": {"path": "m"}, "data": {"train": ["d"]}, "benchmark": section, "cluster": cluster or {}}
    return [line for problem in benchmark_problems(parse_spec(values)) for line in problem.lines()]


def test_tasks_of_local_files_are_fine(task_folder):
    assert lines("choice", "all", "both", include_path=task_folder) == []


def test_nothing_is_looked_at_without_the_section(monkeypatch):
    monkeypatch.setattr("hpcsft.benchmark.check.packaged_tasks", lambda: None)
    assert benchmark_problems(parse_spec({"model": {"path": "m"}, "data": {"train": ["d"]}})) == []
    assert lines("choice") == [
        "error: benchmark: lm-evaluation-harness is not installed",
        "hint: pip install 'hpcsft[lm-eval]', or leave the section benchmark out",
    ]


def test_a_misspelt_task_is_refused_with_the_nearest_names(task_folder):
    assert lines("chioce", "packagd", include_path=task_folder) == [
        f"error: benchmark.tasks: no task 'chioce' in {task_folder} or among those of lm-evaluation-harness",
        "hint: did you mean choice?",
        f"error: benchmark.tasks: no task 'packagd' in {task_folder} or among those of lm-evaluation-harness",
        "hint: did you mean packaged?",
    ]
    assert lines("zzz") == [
        "error: benchmark.tasks: no task 'zzz' among those of lm-evaluation-harness",
        "hint: give the folder of your task files as include_path",
    ]


def test_a_group_with_a_member_that_is_not_there(write):
    folder = write(some="group: some\ntask: [gone]\n")
    assert "no task 'gone', which 'some' names in " in lines("some", include_path=folder)[0]


def test_a_folder_without_task_files(tmp_path, write):
    absent, empty = tmp_path / "absent", tmp_path / "empty"
    empty.mkdir()
    assert lines("x", include_path=absent)[0] == f"error: benchmark.include_path: {absent}: no such folder"
    assert "no task files (*.yaml) in it" in lines("x", include_path=empty)[0]


def test_a_broken_task_file_is_told(write):
    assert "one.yaml: no task file" in lines("one", include_path=write(one="- task: one\n- one\n"))[0]


def test_what_asks_for_trust_is_refused(write):
    folder = write(
        program="task: program\nunsafe_code: true\n",
        loader="task: loader\ndataset_path: json\ndataset_kwargs: {trust_remote_code: true}\n",
    )
    first, _, second, hint = lines("program", "loader", include_path=folder)
    assert first == "error: benchmark.tasks: program runs what the model writes (unsafe_code), which hpcsft never does"
    assert second == "error: benchmark.tasks: loader asks for trust_remote_code, which hpcsft gives to nothing"
    assert hint.startswith("hint: take it out of its file")


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ("{data_files: rows.jsonl}", []),
        ("{data_files: {test: [rows.jsonl, two.jsonl], train: ro*.jsonl}}", ["two.jsonl"]),
        ("{data_files: {test: a.jsonl, train: b.jsonl}, data_dir: deeper}", ["deeper/a.jsonl", "deeper/b.jsonl"]),
        ("{data_files: https://example.org/rows.jsonl}", []),
        ("{}", []),
    ],
)
def test_files_with_rows_that_are_not_there(files, missing, write):
    folder = write(one=f"task: one\ndataset_path: json\ndataset_kwargs: {files}\n")
    (folder / "rows.jsonl").write_text(json.dumps({"a": 1}))
    errors = [line for line in lines("one", include_path=folder) if line.startswith("error")]
    assert errors == [f"error: benchmark.tasks: one: no file {folder / name}" for name in missing]


def test_a_data_set_of_the_hub_has_to_be_in_the_cache(tmp_path):
    message, hint = lines("packaged")
    cache = tmp_path / "home" / "datasets"
    where = f"is not in {cache}, and compute nodes have no internet"
    assert message == f"error: benchmark.tasks: packaged: the data set Owner/SomeData {where}"
    assert (
        "[load_dataset('Owner/SomeData', name) for name in ['hard']]\"; or give the task `dataset_path: json`" in hint
    )
    (cache / "Owner___some_data" / "easy").mkdir(parents=True)
    assert len(lines("packaged")) == 2, "another part of it does not help"
    (cache / "Owner___some_data" / "hard-1234").mkdir()
    assert lines("packaged") == []


def test_one_data_set_of_many_tasks_is_told_once(write):
    tasks = {f"part{n}": f"task: part{n}\ndataset_path: big\n" for n in range(3)}
    folder = write(parts="group: parts\ntask: [part0, part1, part2]\n", **tasks)
    (message, hint) = lines("parts", include_path=folder)
    assert message.startswith("error: benchmark.tasks: part2: the data set big is not in")
    assert "load_dataset('big')" in hint


def test_where_it_cannot_be_known_nothing_is_refused(tmp_path, write):
    """The cache of the jobs may be another, or they may have internet, or the rows come from a folder or a function."""
    assert lines("packaged", cluster={"setup": ["export HF_HOME=/scratch/hf"]}) == []
    assert lines("packaged", cluster={"env": {"HF_HUB_OFFLINE": "0"}}) == []
    elsewhere = tmp_path / "shared"
    (elsewhere / "datasets" / "owner___some_data" / "hard").mkdir(parents=True)
    assert lines("packaged", cluster={"env": {"HF_HOME": str(elsewhere)}}) == []
    folder = write(
        folder="task: folder\ndataset_path: saved\n",
        made="task: made\ndataset_path: x/y\ncustom_dataset: !function utils.rows\n",
        own="task: own\nclass: !function utils.Own\n",
    )
    (folder / "saved").mkdir()
    assert lines("folder", "made", "own", include_path=folder) == []


def test_the_packages_tasks_are_read_only_where_they_are_needed(task_folder, write):
    def needed(*tasks: str, folder: Path | None) -> bool:
        section = {"tasks": list(tasks), "include_path": str(folder) if folder else None}
        values = {"model": {"path": "m"}, "data": {"train": ["d"]}, "benchmark": section}
        return needs_packaged_tasks(parse_spec(values).benchmark)

    assert not needed("choice", "all", folder=task_folder)
    assert needed("choice", "packaged", folder=task_folder)
    assert needed("mixed", folder=write(mixed="group: mixed\ntask: [packaged]\n"))
    assert needed("packaged", folder=None)
