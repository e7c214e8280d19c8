"""Guards the figures of training on the screen: the last step, a right pace, and only the end of a long file."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from hpcsft.monitor.reading.files import Files
from hpcsft.monitor.reading.training import LAST_BYTES, TAIL_BYTES, last_rows, pace_s, read_training
from hpcsft.records import append_jsonl, write_json
from hpcsft.rundir import RunDir

BEGAN = datetime(2026, 11, 30, 10, tzinfo=timezone.utc)


def rows(*seconds: float) -> list[dict[str, object]]:
    """Steps that were written so many seconds after BEGAN."""
    return [
        {"step": n, "loss": 1 / n, "lr": 0.1, "time": (BEGAN + timedelta(seconds=s)).isoformat()}
        for n, s in enumerate(seconds, start=1)
    ]


@pytest.fixture
def run(tmp_path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.create()
    return run


def test_before_training_there_is_nothing(run):
    assert read_training(run, Files(), whole=True) == {}
    assert read_training(run, Files(), whole=False) == {}


def test_the_facts_of_training(run):
    append_jsonl(run.metrics, *rows(*range(100)))
    with open(run.metrics, "a") as file:
        file.write('{"step": 101, "lo')  # being written at this moment
    append_jsonl(run.validation, {"checkpoint": "base", "epoch": 0, "loss": 3.0, "time": "now"})
    facts = read_training(run, Files(), whole=True)
    assert (facts["step"], facts["loss"], facts["lr"], facts["pace_s"]) == (100, 0.01, 0.1, 1.0)
    assert facts["losses"] == [1 / step for step in range(1, 101)]
    assert facts["validation"] == [{"checkpoint": "base", "loss": 3.0}]
    assert "checkpoint" not in facts
    run.step_folder(100).mkdir(parents=True)
    (run.checkpoints / "latest").write_text("step-000100\n")
    assert read_training(run, Files(), whole=True)["checkpoint"] == "step-000100"
    write_json(run.step_folder(100) / "complete.json", {"time": BEGAN.isoformat()})
    assert read_training(run, Files(), whole=True)["checkpoint_time"] == BEGAN.timestamp()
    assert read_training(run, Files(), whole=False)["step"] == 100


def test_the_base_model_may_be_validated_before_the_first_step(run):
    append_jsonl(run.validation, {"checkpoint": "base", "epoch": 0, "loss": 3.0})
    facts = read_training(run, Files(), whole=True)
    assert facts == {"losses": [], "pace_s": None, "validation": [{"checkpoint": "base", "loss": 3.0}]}


def test_a_step_that_was_passed_over_has_no_loss_to_draw(run):
    for step, loss in enumerate((3.0, None, 2.0, None), start=1):
        append_jsonl(run.metrics, {"step": step, "loss": loss})
    facts = read_training(run, Files(), whole=True)
    assert facts["loss"] is None and facts["losses"] == [3.0, 2.0]


def test_of_a_long_file_only_the_end_is_read(run):
    with open(run.metrics, "w") as file:
        for row in rows(*range(20_000)):
            file.write(json.dumps({**row, "filler": "x" * 80}) + "\n")
    tail = last_rows(run.metrics, TAIL_BYTES)
    assert tail[-1]["step"] == 20_000 and 1000 < len(tail) < 3000
    assert [row["step"] for row in tail] == list(range(20_001 - len(tail), 20_001)), "no row is lost, none is a part"
    assert last_rows(run.metrics, LAST_BYTES)[-1]["step"] == 20_000


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([], None),
        ([0], None),
        ([0, 2], 2.0),
        ([0, 2, 4, 14], 14 / 3),  # with a save, which counts
        ([0, 4000, 8000], 4000),  # steps that take an hour
        ([9, 8], None),  # a clock that was set back
    ],
)
def test_the_pace(seconds, expected):
    assert pace_s(rows(*seconds)) == (pytest.approx(expected) if expected else None)


def test_the_pace_is_that_of_the_newest_attempt():
    """Not of the queue before it, however short that was."""
    times = rows(0, 2, 4, 100, 103, 106)
    assert pace_s(times, since=BEGAN.timestamp() + 90) == 3.0 and pace_s(times) == pytest.approx(106 / 5)
    assert pace_s(times, since=BEGAN.timestamp() + 200) is None


def test_the_pace_is_that_of_the_last_hundred_steps():
    assert pace_s(rows(*(10 * n for n in range(50)), *(490 + n for n in range(1, 200)))) == pytest.approx(1.0)


@pytest.mark.parametrize("line", ["5", "[]", '"x"', "null", "{}"])
def test_a_line_that_is_no_step_is_passed_over(run, line):
    append_jsonl(run.metrics, *rows(0, 1))
    with open(run.metrics, "a") as file:
        file.write(line + "\n")
    assert read_training(run, Files(), whole=True)["step"] == 2
