"""What a resumed run may change: its resources, and those only as far as training can follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsft.cluster import resume as resume_module
from hpcsft.cluster.resume import resume_run
from hpcsft.errors import SpecError, SubmissionError
from hpcsft.plan import Plan
from hpcsft.records import read_json, write_json
from hpcsft.rundir import RunDir
from tests.conftest import make_spec_values
from tests.launch.command import slurm_path
from tests.runs import finished_run

STAGES = ["preprocess", "train", "generate", "judge", "report"]


@pytest.fixture
def values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A spec whose inputs are not there, on a cluster that takes every job: nothing is ever started."""
    clients = slurm_path(tmp_path / "bin")
    (clients / "sbatch").write_text("#!/bin/sh\necho Submitted batch job 17\n")
    (clients / "squeue").write_text("#!/bin/sh\n")
    (clients / "squeue").chmod(0o755)
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
    resume_run(run, stages, overrides)
    return Plan.model_validate(read_json(run.plan))


def test_what_slurm_refuses_is_no_part_of_the_run(values, tmp_path):
    """Else every later resume would ask for it again, and only who undoes it by hand could go on."""
    run = ended_run(values)
    write_json(run.cancelled, {"time": "then"})
    before = contents(run)
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: Invalid partition' >&2\nexit 1\n")
    with pytest.raises(SubmissionError, match="Invalid partition"):
        resume_run(run, ["train", "report"], ["cluster.partition=lowww"])
    assert {path: content for path, content in contents(run).items() if path in before} == before


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


def of_an_older_version(values: dict[str, Any]) -> tuple[RunDir, dict[str, Any]]:
    """A run that was made before there were some of the fields, and its spec.json."""
    run = ended_run(values)
    spec = read_json(run.spec)
    for field in ("venv", "modules", "network"):
        del spec["cluster"][field]
    del spec["cluster"]["retries"]["bad_node"], spec["train"]["max_steps"]
    write_json(run.spec, spec)
    run.submitted.unlink(missing_ok=True)
    return run, spec


def test_the_spec_of_an_older_run_gets_no_fields_that_its_own_code_would_refuse(values):
    run, before = of_an_older_version(values)
    resume(run, ["train"])
    assert read_json(run.spec) == before
    resume(run, ["train"], "cluster.train.nodes=2", 'cluster.env={"A": "1"}', "cluster.retries.timeout=7")
    changed = {"nodes": 2, **{name: value for name, value in before["cluster"]["train"].items() if name != "nodes"}}
    cluster = {**before["cluster"], "train": changed, "env": {"A": "1"}}
    cluster["retries"] = {**cluster["retries"], "timeout": 7}
    assert read_json(run.spec) == {**before, "cluster": cluster}


def test_a_field_that_the_code_of_an_older_run_does_not_know_is_refused_before_anything_is_changed(values):
    run, _ = of_an_older_version(values)
    before = contents(run)
    with pytest.raises(SpecError) as error:
        resume_run(run, ["preprocess"], ["cluster.venv=/software/v", "cluster.preprocess.tasks=3"])
    assert f"cluster.venv: {run.code} is of an older version that does not know it" in told(error)
    assert contents(run) == before


def test_a_run_that_is_cancelled_while_it_is_resumed_stays_cancelled(values, monkeypatch):
    """Before anything is submitted: what comes from the hub may take hours."""
    run = ended_run(values)
    write_json(run.cancelled, {"time": "before"})
    monkeypatch.setattr(resume_module, "keep_inputs", lambda *_: write_json(run.cancelled, {"time": "meanwhile"}))
    with pytest.raises(SubmissionError, match="was cancelled while it was being resumed"):
        resume_run(run, ["train"])
    assert run.is_cancelled()


def test_a_spec_of_an_older_version_that_is_not_taken_any_more_is_told_without_what_it_holds(values):
    run, spec = of_an_older_version(values)
    spec["cluster"]["env"] = {"WANDB_API_KEY": "canary"}
    write_json(run.spec, spec)
    with pytest.raises(SpecError) as error:
        resume_run(run, ["train"])
    assert "cluster.env: WANDB_API_KEY looks like a secret" in told(error) and "canary" not in told(error)
    assert f"hint: the version that made {run.path} can resume it" in told(error)
