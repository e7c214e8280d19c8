"""The list of runs on every width of a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hpcsft.disk_use import DiskUse
from hpcsft.records import Progress
from hpcsft.runs_list import RunList, RunRow, progress_text, runs_table, sort_rows, sum_lines

NAME = "llama-7b-ultrachat-0a1b2c3d"


def row(name: str = NAME, state: str = "running", **facts) -> RunRow:
    disk = DiskUse(checkpoints_bytes=3_000_000_000, models_bytes=200, data_bytes=30, rest_bytes=4)
    given = {"run_dir": f"/r/{name}", "submitted": "2026-11-30T08:00:00", "disk": disk, "stage": "train"}
    return RunRow(name=name, state=state, **{**given, **facts})


def lines(found: RunList, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(runs_table(found, width))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [30, 40, 59, 60, 79, 80, 119, 120, 200])
def test_no_line_is_wrapped_and_disk_use_is_always_seen(width):
    found = RunList(runs=[row(), row("b-0a1b2c3d", state="unsubmitted")], total_bytes=1)
    shown = lines(found, width)
    assert len(shown) == 3 and max(map(len, shown)) <= width
    assert shown[1].endswith("3.0 GB") and "running" in shown[1]
    assert (NAME in shown[1]) == (width >= 59), "a name is cut on the narrowest screens only"


def test_wide_screens_have_the_parts():
    found = RunList(runs=[row(progress=Progress(done=30, total=100, unit="steps"), epoch=0.9)], total_bytes=1)
    head, line = lines(found, 120)
    assert "submitted" not in lines(found, 50)[0] and "submitted" in lines(found, 70)[0]
    assert head.split() == ["run", "state", "submitted", "progress", "checkpoints", "models", "data", "rest", "disk"]
    assert "2026-11-30 08:00" in line and "train 30%, epoch 0.90" in line and " 200 B " in line


def test_without_disk_use_there_is_no_column_for_it():
    assert lines(RunList(runs=[row(disk=None)]), 100)[0].split() == ["run", "state", "submitted", "progress"]


def test_progress_in_words():
    assert progress_text(row(state="done", epoch=3.0)) == "epoch 3.00"
    assert progress_text(row(state="done", stage=None)) == ""
    assert progress_text(row(stage="judge", epoch=3.0)) == "judge"


def test_the_orders():
    big = row("a", submitted="2026-01-01", disk=DiskUse(rest_bytes=9))
    new = row("b", submitted="2026-02-01", disk=DiskUse(rest_bytes=1))
    odd = row("c", submitted=None, disk=None)
    orders = {by: [each.name for each in sort_rows([odd, new, big], by)] for by in ("name", "time", "disk")}
    assert orders == {"name": ["a", "b", "c"], "time": ["b", "a", "c"], "disk": ["a", "b", "c"]}


def test_what_stands_below():
    assert sum_lines(RunList(runs=[row()])) == ["1 run"]
    found = RunList(runs=[], total_bytes=5_000, shared_bytes=2_000, problem="squeue does not answer")
    assert sum_lines(found) == [
        "0 runs, 5.0 kB",
        "2.0 kB of it are linked from .cache or another run, and counted once",
        "Slurm: squeue does not answer; the states come from the run directories alone",
    ]
