"""What a resumed run may change: its resources, and those only as far as training can follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsft.cluster.resume import resume_run
from hpcsft.errors import SpecError, SubmissionError
from hpcsft.plan import Plan
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from tests.conftest import make_spec_values
from tests.launch.command import slurm_path
from tests.runs import finished_run

STAGES = ["preprocess", "train", "generate", "judge", "report"]


@pytest.fixture
def values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A spec whose inputs are not there, on a cluster that refuses every job: nothing is ever started."""
    clients = slurm_path(tmp_path / "bin")
    (clients / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: Invalid account' >&2\nexit 1\n")
    monkeypatch.setenv("PATH", str(clients))
    found = make_spec_values(Path("/models/tiny"), Path("/data/a.jsonl"), Path("/data/p.json"), tmp_path / "runs")
    found["cluster"] = {"kind": "slurm", "preprocess": {"tasks": 2}, "train": {"tasks_per_node": 2}}
    return found


def ended_run(values: dict[str, Any]) -> RunDir:
    run = finished_run(values)
    run.submission.unlink()
    return run


def resume(run: RunDir, stages: list[str], *overrides: str) -> Plan:
    """The plan that would have been submitted."""
    with pytest.raises(SubmissionError):
        resume_run(run, stages, overrides)
    return Plan.model_validate(read_json(run.plan))


def told(error: pytest.ExceptionInfo[SpecError]) -> str:
    return " ".join(error.value.lines())


def contents(run: RunDir) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(run.path.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "override",
    ["seed=8", "train.epochs=3", "runs_dir=elsewhere", "clusters=1", "evaluate.shards=3", "notifying=1"],
)
def test_a_run_keeps_its_experiment(values, override):
    run = ended_run(values)
    before = contents(run)
    with pytest.raises(SpecError) as error:
        resume_run(run, ["train"], ["cluster.train.nodes=2", override])
    assert (
        f"--set {override}: resume changes cluster.*, evaluate.checks.* and evaluate.judge.*, and notify only"
        in told(error)
        and "cluster.train" not in told(error)
    )
    assert contents(run) == before


def test_a_run_that_waits_for_a_judge_can_be_given_more_money_other_limits_and_another_judge(values):
    run = ended_run(values)
    price = 'evaluate.judge.price={"input": 1.5, "output": 2.0}'
    resume(
        run,
        ["judge"],
        price,
        "evaluate.judge.max_cost_usd=20",
        "evaluate.checks.echo=1",
        "evaluate.judge.max_tokens=500",
    )
    evaluate = read_json(run.spec)["evaluate"]
    assert (evaluate["judge"]["max_cost_usd"], evaluate["judge"]["price"]["input"]) == (20, 1.5)
    assert (evaluate["checks"]["echo"], evaluate["judge"]["max_tokens"]) == (1, 500)


def test_a_run_can_tell_somebody_else_from_now_on(values):
    run = ended_run({**values, "notify": {"webhook": "$HOOK"}})
    resume(run, ["report"], "notify.webhook=$OTHER", 'notify.on=["failed"]')
    assert read_json(run.spec)["notify"] == {"command": None, "webhook": "$OTHER", "on": ["failed"]}
    resume(run, ["report"], 'notify={"command": ["mail", "me"]}')
    assert read_json(run.spec)["notify"]["command"] == ["mail", "me"]
    resume(run, ["report"], "notify=null")
    assert read_json(run.spec)["notify"] is None
    resume(run, ["report"], "notify.webhook=$HOOK")
    assert read_json(run.spec)["notify"]["webhook"] == "$HOOK"


@pytest.mark.parametrize(
    ("setting", "reason"), [("round_robin_gradients", "round-robin order"), ("elastic_checkpoint", "elastic layout")]
)
def test_another_number_of_ranks_is_refused_where_deepspeed_could_not_convert(values, setting, reason):
    values["train"] |= {"zero_stage": 2, "deepspeed": {"zero_optimization": {setting: True}}}
    run = ended_run(values)
    before = contents(run)
    with pytest.raises(SpecError) as error:
        resume_run(run, ["train", "report"], ["cluster.train.tasks_per_node=1"])
    assert "training cannot go on with another number of ranks" in told(error) and reason in told(error)
    assert contents(run) == before
    assert resume(run, ["train", "report"], "cluster.train.time=00:30:00").stage("train").time_min == 30


def test_only_what_is_submitted_again_gets_other_resources(values):
    run = ended_run(values)
    digest = read_json(run.plan)["digest"]
    plan = resume(run, ["train"], "cluster.train.tasks_per_node=1", "cluster.partition=gpu")
    assert (plan.stage("train").world_size, plan.stage("train").partition) == (1, "gpu")
    assert (plan.stage("report").partition, plan.digest) == (None, digest)
    assert read_json(run.spec)["cluster"]["train"]["tasks_per_node"] == 1


def test_the_parts_of_a_stage_that_is_split_anew_are_not_taken_for_done(values):
    run = ended_run(values)
    statuses = {path.name for path in run.status.iterdir()}
    own = {"preprocess-0.json", "preprocess-1.json"}
    assert own < statuses
    resume(run, STAGES[1:], "cluster.preprocess.tasks=3")
    assert {path.name for path in run.status.iterdir()} == statuses, "it is done, and stays as it is"
    resume(run, STAGES, "cluster.preprocess.tasks=2", "cluster.time=00:30:00")
    assert {path.name for path in run.status.iterdir()} == statuses, "as many parts as before"
    assert resume(run, STAGES, "cluster.preprocess.tasks=3").stage("preprocess").tasks == 3
    assert {path.name for path in run.status.iterdir()} == statuses - own
