"""The smoke run: all stages with the real options and little to do, the same directory for the same spec, and an end
that tells whether the real run may follow.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hpcsft.cluster import smoke as module
from hpcsft.cluster.smoke import VALID_S, smoke, smoke_spec, smoke_stages, write_smoke_prompts
from hpcsft.errors import EXIT_FAILED, EXIT_OK, EXIT_UNFINISHED, StageError
from hpcsft.evaluate.prompts import load_prompts
from hpcsft.monitor.app import watch_to_the_end
from hpcsft.plan import make_plan
from hpcsft.records import StageStatus, Submission, SubmittedStage, now, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from tests.cluster.minislurm import MiniSlurm


@pytest.fixture
def values(spec_values: dict[str, Any]) -> dict[str, Any]:
    """What a large training asks for."""
    spec_values["train"].update(global_batch_size=128, epochs=3)
    spec_values["evaluate"]["checkpoints"] = ["base", "epoch-2", "epoch-3"]
    spec_values["cluster"] = {
        "kind": "slurm",
        "partition": "low",
        "qos": "long",
        "gpus_per_node": 8,
        "time": "12:00:00",
        "sbatch": {"exclusive": True},
        "preprocess": {"tasks": 8, "time": "00:05:00"},
        "train": {"nodes": 4},
    }
    return spec_values


def test_it_has_the_real_options_on_one_node_and_a_handful_of_everything(values):
    spec = parse_spec(values)
    small = smoke_spec(spec)
    plan, real = make_plan(small), make_plan(spec)
    assert plan.stage_names == real.stage_names
    train = plan.stage("train")
    assert (train.nodes, train.gpus_per_node, train.tasks_per_node, train.qos) == (1, 8, 8, "long")
    assert small.cluster.sbatch == {"exclusive": True}
    assert [stage.time for stage in plan.stages] == ["00:05:00", *["00:30:00"] * 4]
    assert [stage.tasks for stage in plan.stages] == [1] * 5
    assert (plan.batch.accumulation_steps, small.train.global_batch_size) == (2, 32)
    assert (small.train.epochs, small.train.max_steps, small.train.micro_batch_size) == (1, 2, 2)
    assert small.train.learning_rate == spec.train.learning_rate
    assert small.train.checkpoint.every_steps > 2 and small.train.checkpoint.keep_last == 1
    assert (small.evaluate.checkpoints, small.evaluate.shards) == (["base", "epoch-1"], 1)
    assert (small.name, small.notify) == ("tiny-smoke", None)


def test_four_empty_answers_are_what_it_is_there_to_tell(values):
    values["evaluate"]["checks"] = {"empty": 0.1, "echo": 0.9, "cut": 0.3}
    checks = smoke_spec(parse_spec(values)).evaluate.checks
    assert (checks.empty, checks.echo, checks.cut, checks.loop) == (0.5, 0.9, 1, 1)


def test_one_conversation_goes_to_validation_and_more_are_drawn_than_two_steps_take(values):
    values["data"].update(validation=["v.jsonl"], sample=0.5)
    assert smoke_spec(parse_spec(values)).data.sample == 2 * 32 * 16
    assert 0 < smoke_spec(parse_spec(values)).data.validation < 0.05
    values["data"].update(validation=0, sample=40)
    assert (smoke_spec(parse_spec(values)).data.sample, smoke_spec(parse_spec(values)).data.validation) == (40, 0)


def test_the_same_spec_has_the_same_directory_and_another_has_another(values):
    path = smoke_spec(parse_spec(values)).run_path
    assert smoke_spec(parse_spec(values)).run_path == path != parse_spec(values).run_path
    values["train"]["zero_stage"] = 3
    assert smoke_spec(parse_spec(values)).run_path != path
    values["name"] = "a" * 64
    assert smoke_spec(parse_spec(values)).name == "a" * 58 + "-smoke"


def test_its_prompts_are_the_first_of_the_real_ones(values):
    spec = parse_spec(values)
    write_smoke_prompts(spec)
    assert load_prompts(smoke_spec(spec).evaluate.prompts) == load_prompts(spec.evaluate.prompts)[:4]


def test_a_benchmark_has_few_rows(values):
    values["benchmark"] = {"tasks": ["arc_easy"], "limit": 2, "checkpoints": ["epoch-3"]}
    small = smoke_spec(parse_spec(values)).benchmark
    assert (small.limit, small.checkpoints) == (2, ["epoch-1"])
    values["benchmark"] = {"tasks": ["arc_easy"]}
    assert smoke_spec(parse_spec(values)).benchmark.limit == 4


def test_without_a_key_there_is_no_judge_to_wait_for(values, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    spec = smoke_spec(parse_spec(values))
    assert smoke_stages(spec, make_plan(spec), None) == (["preprocess", "train", "generate", "judge", "report"], [])
    values["evaluate"]["judge"] = {"kind": "openai"}
    spec = smoke_spec(parse_spec(values))
    stages, lacks = smoke_stages(spec, make_plan(spec), None)
    assert stages == ["preprocess", "train", "generate"] and any("OPENAI_API_KEY" in lack for lack in lacks)


class Stand:
    """Stands in for the cluster: what a run is submitted for, and how its stages end, is the test's to say."""

    def __init__(self, ends: dict[str, str], code: int):
        self.ends, self.code = ends, code
        self.submitted = 0
        self.queued = True
        self.cancelled: list[str] = []

    def submit(self, spec, plan, stages, argv):
        run = RunDir(spec.run_path)
        self.submitted += 1
        run.create()
        write_json(run.spec, spec)
        write_json(run.plan, plan)
        jobs = [SubmittedStage(stage=name, job_id="7", depends_on=[], tasks=1, submitted=now()) for name in stages]
        run.write_submission(Submission(cluster="slurm", host="login", jobs=jobs))
        return run, jobs, True

    def watch(self, run: RunDir, quiet: bool) -> int:
        for folder in (run.checkpoints, run.models):
            (folder / "epoch-1").mkdir(parents=True, exist_ok=True)
        for stage, state in self.ends.items():
            status = StageStatus(stage=stage, index=0, state=state, attempt=1, job_id="7", message="no GPU", hint="ask")
            write_json(run.status_file(stage, 0, 1), status)
        return self.code

    def smoke(self, spec) -> None:
        smoke(spec, None, ["submit"], self.watch)


STAGES = ("preprocess", "train", "generate", "judge", "report")


@pytest.fixture
def stand(monkeypatch) -> Stand:
    stand = Stand(dict.fromkeys(STAGES, "done"), EXIT_OK)
    monkeypatch.setattr(module, "submit_experiment", stand.submit)
    monkeypatch.setattr(module, "cancel_run", lambda run: run.cancelled.touch())
    monkeypatch.setattr(module, "jobs_in_queue", lambda run: ["7"])
    monkeypatch.setattr(module, "in_hands", lambda run: stand.queued)
    monkeypatch.setattr(module.slurm_client, "cancel_jobs", stand.cancelled.extend)
    return stand


def aside(run: RunDir) -> Path:
    return run.path.with_name(f".{run.path.name}.1")


def last_line(capsys) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_one_that_has_passed_counts_for_a_day_and_leaves_no_weights(values, stand, capsys):
    spec = parse_spec(values)
    stand.smoke(spec)
    run = RunDir(smoke_spec(spec).run_path)
    assert last_line(capsys) == "the smoke run has passed"
    assert not run.checkpoints.exists() and not run.models.exists() and run.status.exists()
    stand.smoke(spec)
    assert stand.submitted == 1 and "passed 0.0 h ago" in last_line(capsys)
    for file in run.status.glob("*.json"):
        os.utime(file, (0, file.stat().st_mtime - VALID_S - 1))
    stand.smoke(spec)
    assert stand.submitted == 2 and aside(run).is_dir()


def test_one_that_failed_says_so_and_is_moved_aside_when_it_is_tried_again(values, stand, capsys):
    spec = parse_spec(values)
    stand.ends, stand.code = {"preprocess": "done", "train": "failed"}, EXIT_FAILED
    with pytest.raises(StageError, match="the smoke run failed in train: no GPU; nothing else was submitted") as caught:
        stand.smoke(spec)
    run = RunDir(smoke_spec(spec).run_path)
    assert caught.value.hint == "ask" and stand.cancelled == ["7"], "what is left of it does not go on"
    assert not run.cancelled.exists(), "the monitor would say that somebody cancelled it"
    stand.ends, stand.code = dict.fromkeys(STAGES, "done"), EXIT_OK
    stand.smoke(spec)
    old = RunDir(aside(run))
    assert old.read_status("train", 0, 1).state == "failed" and not old.models.exists()
    assert last_line(capsys) == "the smoke run has passed" and not run.cancelled.exists()


def test_one_that_ended_without_a_word_or_waits(values, stand):
    stand.ends, stand.code = {}, EXIT_FAILED
    with pytest.raises(StageError, match="the smoke run did not pass; nothing else was submitted"):
        stand.smoke(parse_spec(values))
    stand.ends, stand.queued = {"judge": "waiting"}, False
    with pytest.raises(StageError, match="the smoke run waits for a person in judge: no GPU"):
        stand.smoke(parse_spec(values))


def test_who_leaves_goes_on_with_the_same_one(values, stand):
    spec = parse_spec(values)
    stand.ends, stand.code = {"preprocess": "done", "train": "running"}, EXIT_UNFINISHED
    with pytest.raises(StageError, match="the smoke run is not over; nothing else was submitted") as caught:
        stand.smoke(spec)
    assert caught.value.hint == "the same command goes on with it"
    run = RunDir(smoke_spec(spec).run_path)
    assert not run.cancelled.exists()
    stand.ends, stand.code = dict.fromkeys(STAGES, "done"), EXIT_OK
    stand.smoke(spec)
    assert not aside(run).exists()


def test_with_a_document_to_come_stdout_is_left_alone(values, stand, capsys):
    smoke(parse_spec(values), None, ["submit"], stand.watch, quiet=True)
    told = capsys.readouterr()
    assert told.out == "" and told.err.endswith("the smoke run has passed\n")


@pytest.mark.slurm
def test_on_a_real_slurm_all_stages_run(slurm: MiniSlurm, spec_values: dict[str, Any], capsys) -> None:
    train = {"nodes": 2, "tasks_per_node": 1}
    spec_values["cluster"] = {
        "kind": "slurm",
        "partition": "low",
        "time": "02:00:00",
        "cpus_per_task": 1,
        "train": train,
    }
    spec = parse_spec(spec_values)
    smoke(spec, None, ["submit"], watch_to_the_end)
    told = capsys.readouterr().out
    assert told.splitlines()[-1] == "the smoke run has passed"
    run = RunDir(smoke_spec(spec).run_path)
    metrics = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [row["step"] for row in metrics] == [1, 2]
    assert not Path(spec.run_path).exists(), "the real run is for the caller to submit"
