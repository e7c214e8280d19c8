"""What a save takes is taken from a run that saved the same thing, and from no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcsft.plan import make_plan
from hpcsft.preflight.earlier import measured_save_s
from hpcsft.records import append_jsonl
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from tests.prepared import new_run


def saved(values: dict[str, Any], *took_s: float) -> RunDir:
    run = new_run(values)
    rows = [{"event": "saved", "step": 5, "took_s": seconds} for seconds in took_s]
    append_jsonl(run.attempts / "train.jsonl", {"event": "start"}, *rows)
    return run


def measured(values: dict[str, Any], **changes: Any) -> float | None:
    spec = parse_spec({**values, "seed": 99, **changes})
    return measured_save_s(spec, make_plan(spec))


def test_the_longest_save_of_a_run_of_this_name_counts(spec_values):
    assert measured(spec_values) is None
    saved(spec_values, 3.0, 7.5)
    assert measured(spec_values) == 7.5


def test_the_smoke_run_of_this_name_counts(spec_values):
    saved({**spec_values, "name": "tiny-smoke"}, 2.0)
    assert measured(spec_values) == 2.0


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"train": {"global_batch_size": 8, "micro_batch_size": 2, "zero_stage": 3}},
        {"cluster": {"kind": "local", "train": {"tasks_per_node": 4}}},
    ],
)
def test_what_saves_something_else_does_not_count(spec_values, changes):
    saved(spec_values, 3.0)
    assert measured(spec_values, **changes) is None


def test_runs_that_cannot_be_read_are_passed_over(spec_values):
    saved(spec_values, 3.0)
    broken = saved({**spec_values, "seed": 8}, 9.0)
    broken.spec.write_text(json.dumps({"name": "tiny"}))
    assert measured(spec_values) == 3.0
    assert measured({**spec_values, "runs_dir": str(Path(spec_values["runs_dir"]) / "none")}) is None
