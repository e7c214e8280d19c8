"""Guards what follows a lack of memory: the micro batch halves, global batch and losses stay, and it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcsft.attempt.fence import Token
from hpcsft.attempt.journal import Journal
from hpcsft.data.order import divide
from hpcsft.records import read_jsonl
from hpcsft.train.micro_batch import parts_after
from tests.train.ranks import new_run, train

MEMORY = {"event": "end", "cause": "out_of_memory", "halve": True}
OTHER = {"event": "end", "cause": "preemption", "halve": False}


def halved(parts: int) -> dict[str, Any]:
    return {"event": "micro_batch", "parts": parts}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], 1),
        ([OTHER], 1),
        ([MEMORY], 2),
        ([MEMORY, halved(2), OTHER], 2),
        ([MEMORY, halved(2), OTHER, halved(2), MEMORY], 4),
        ([{**MEMORY, "halve": False}], 1),
        ([MEMORY, MEMORY], 4),
        ([MEMORY, MEMORY, MEMORY, MEMORY], 4),
    ],
)
def test_every_lack_of_memory_halves_what_is_computed_at_a_time(rows, expected):
    assert parts_after(rows, micro_batch_size=4) == expected


def test_a_micro_batch_of_one_row_stays_whole():
    assert parts_after([MEMORY, MEMORY], micro_batch_size=1) == 1


def test_a_divided_micro_batch_has_the_same_rows_in_parts_of_about_equal_length():
    lengths = np.array([90, 5, 60, 40, 30, 20, 10, 1])
    parts = divide(np.array([0, 2, 3, 4, 5, 6]), lengths, 2)
    assert sorted(row for part in parts for row in part.tolist()) == [0, 2, 3, 4, 5, 6]
    assert [int(lengths[part].sum()) for part in parts] == [130, 120]
    assert [part.tolist() for part in divide(np.array([3]), lengths, 4)] == [[3], [], [], []]
    assert [part.tolist() for part in divide(np.array([], dtype=np.int64), lengths, 2)] == [[], []]
    assert divide(np.array([4, 7]), lengths, 1)[0].dtype == np.int64


@pytest.mark.parametrize("stage", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_a_divided_micro_batch_is_learnt_as_before(stage: int, spec_values: dict[str, Any], tmp_path: Path) -> None:
    """Only the order of sums differs, also where a rank has parts without rows."""
    spec_values.pop("evaluate")
    spec_values["data"]["sample"] = 60
    spec_values["train"] |= {"epochs": 1, "micro_batch_size": 4}
    losses = []
    for parts in (1, 4):
        values = json.loads(json.dumps(spec_values))
        run = new_run(values, tmp_path / str(parts), f"train.zero_stage={stage}")
        if parts > 1:
            run.attempts.mkdir(exist_ok=True)
            journal = Journal(run, "train", 0, 1, Token(job_id="before", restart=0))
            journal.write("micro_batch", parts=parts)
        output = train(run)
        told = "computed in 4 parts, with 4 accumulation steps instead of 1; the global batch stays"
        assert (told in output) == (parts > 1)
        losses.append([(row["loss"], row["grad_norm"]) for row in read_jsonl(run.metrics)])
    assert len(losses[0]) >= 4
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
