"""Guards old figures: they count only while all that they were measured with is as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpcsft.benchmark.task_digest import task_digest
from hpcsft.benchmark.task_files import TaskFiles


def digest(folder: Path, name: str = "all") -> str:
    return task_digest(name, TaskFiles([folder]), str(folder))


@pytest.fixture
def folder(write) -> Path:
    folder = write(
        all="group: all\ntask:\n  - one\n  - inner\naggregate_metric_list: [{metric: acc}]\n",
        inner="group: inner\ntask: [saved, listed]\nmetadata: {version: 1}\n",
        base="dataset_path: json\ndataset_kwargs: {data_files: {test: [rows-*.jsonl]}}\ndoc_to_text: Question\n",
        one="include: base.yaml\ntask: one\n",
        saved="task: saved\ndataset_path: saved\n",
        listed="task: listed\ndataset_path: json\ndataset_kwargs: {data_dir: listed}\n",
        other="task: other\ndataset_path: json\ndataset_kwargs: {data_files: other.jsonl}\n",
    )
    for name in ("rows-1.jsonl", "other.jsonl", "saved/deep/x.arrow", "listed/x.json", "utils.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("first")
    return folder


def replace(name: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new))


@pytest.mark.parametrize(
    "change",
    [
        replace("base.yaml", "Question", "Q"),
        replace("all.yaml", "acc", "acc_norm"),
        replace("inner.yaml", "1", "2"),
        replace("inner.yaml", "[saved, listed]", "[saved]"),
        replace("rows-1.jsonl", "first", "again"),
        lambda folder: (folder / "rows-2.jsonl").write_text(""),
        replace("saved/deep/x.arrow", "first", "again"),
        replace("listed/x.json", "first", "again"),
        replace("utils.py", "first", "again"),
    ],
)
def test_whatever_decides_a_figure_changes_the_digest(change, folder):
    before = digest(folder)
    change(folder)
    assert digest(folder) != before


@pytest.mark.parametrize(
    "change",
    [
        replace("other.jsonl", "first", "again"),
        replace("other.yaml", "other.jsonl", "else.jsonl"),
        replace("base.yaml", "doc_to_text", "# a remark\ndoc_to_text"),
        lambda folder: (folder / "utils.py").touch(),
    ],
)
def test_what_decides_nothing_costs_no_second_measurement(change, folder):
    before = digest(folder)
    change(folder)
    assert digest(folder) == before


def test_tasks_of_the_package_do_not_hang_on_code_beside_them(folder, tmp_path):
    """That code is known by the version of lm-evaluation-harness."""
    (tmp_path / "own").mkdir()
    files = TaskFiles([tmp_path / "own", folder])
    before = task_digest("saved", files, str(tmp_path / "own"))
    (tmp_path / "own" / "utils.py").write_text("more")
    assert task_digest("saved", files, str(tmp_path / "own")) == before
