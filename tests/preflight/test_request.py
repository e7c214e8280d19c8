"""What is looked at before a submission and before a run is resumed, on the real Slurm; and when nothing is."""

from __future__ import annotations

from typing import Any

import pytest

from hpcsft.errors import PreflightError
from hpcsft.preflight.request import Request, check_changes
from hpcsft.records import Submission, SubmittedStage
from hpcsft.spec import parse_spec
from tests.cluster.minislurm import MiniSlurm
from tests.prepared import new_run

pytestmark = pytest.mark.slurm


@pytest.fixture
def values(spec_values: dict[str, Any], slurm: MiniSlurm) -> dict[str, Any]:
    train = {"tasks_per_node": 2}
    return {**spec_values, "cluster": {"kind": "slurm", "partition": "low", "time": 10, "train": train}}


def test_what_is_wrong_stops_a_submission_and_what_is_only_a_pity_does_not(values):
    assert {found.level for found in Request.of(parse_spec(values)).check(force=False)} <= {"warning"}
    values["cluster"]["partition"] = "lowww"
    with pytest.raises(PreflightError, match="no partition 'lowww'"):
        Request.of(parse_spec(values)).check(force=True)


def test_nothing_is_looked_at_where_all_has_been_submitted(values, monkeypatch):
    run = new_run(values)
    request = Request.of(parse_spec(values))
    jobs = [SubmittedStage(stage=name, job_id="1", depends_on=[], tasks=1, submitted="") for name in request.stages]
    run.write_submission(Submission(cluster="slurm", host="login", jobs=jobs))
    monkeypatch.setenv("PATH", "/nowhere")
    assert request.check(force=False) == []


def test_other_resources_of_a_run_are_looked_at_as_those_of_a_new_one(values, monkeypatch):
    run = new_run(values)
    with pytest.raises(PreflightError, match="no partition 'lowww'"):
        check_changes(run, ["train"], ["cluster.partition=lowww"], force=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert check_changes(run, ["train"], [], force=False) == []


def test_a_run_whose_inputs_are_gone_may_still_be_resumed(values, tmp_path):
    """Preprocessing may be done."""
    data = tmp_path / "data.jsonl"
    data.write_text('{"id": "1", "data": ["Hello", "Hello there"]}\n')
    values["data"]["train"] = [str(data)]
    run = new_run(values)
    data.unlink()
    assert check_changes(run, ["train"], ["cluster.partition=lowww"], force=False) == []
