"""What a spec comes to on the cluster: the stages, who waits for whom, what each asks for, and the batch arithmetic.

A mistake here costs a night in the queue, so everything that cannot work is refused before, with what would.
"""

from __future__ import annotations

import pytest

from hpcsft.errors import SpecError
from hpcsft.plan import DEFAULT_TIME, STAGES, Plan, make_plan, split_batch
from hpcsft.spec import parse_spec

BENCHMARK = {"tasks": ["arc_easy"]}


def plan_of(cluster: dict | None = None, evaluate: dict | None = None, **sections) -> Plan:
    values = {"model": {"path": "m"}, "data": {"train": ["d.jsonl"]}, **sections}
    if cluster is not None:
        values["cluster"] = cluster
    if evaluate is not None:
        values["evaluate"] = {"prompts": "p.json", **evaluate}
    return make_plan(parse_spec(values))


def test_stages_and_what_they_wait_for():
    plan = plan_of(evaluate={}, benchmark=BENCHMARK)
    assert {stage.name: stage.depends_on for stage in plan.stages} == {
        "preprocess": [],
        "train": ["preprocess"],
        "generate": ["train"],
        "benchmark": ["train"],
        "judge": ["generate"],
        "report": ["benchmark", "judge"],
    }
    assert tuple(plan.stage_names) == STAGES
    assert plan.stage_names == list(STAGES)


def test_without_evaluation_the_report_follows_training():
    plan = plan_of()
    assert plan.stage_names == ["preprocess", "train", "report"]
    assert plan.stage("report").depends_on == ["train"]
    with pytest.raises(KeyError, match="judge"):
        plan.stage("judge")


@pytest.mark.parametrize(
    ("sections", "end"), [({"evaluate": {}}, "judge"), ({"benchmark": BENCHMARK}, "benchmark")], ids=["judge", "tasks"]
)
def test_the_report_waits_for_what_there_is(sections, end):
    plan = plan_of(**sections)
    assert plan.stage("report").depends_on == [end]
    assert {"benchmark", "judge"} & set(plan.stage_names) == {end}


def test_every_stage_waits_only_for_stages_before_it():
    plan = plan_of(evaluate={}, benchmark=BENCHMARK)
    for number, stage in enumerate(plan.stages):
        assert set(stage.depends_on) <= set(plan.stage_names[:number])


def test_arrays_are_as_wide_as_the_spec_says():
    plan = plan_of({"preprocess": {"tasks": 8}}, {"shards": 3}, benchmark=BENCHMARK, train={"epochs": 4})
    assert {stage.name: stage.tasks for stage in plan.stages} == {
        "preprocess": 8,
        "train": 1,
        "generate": 3,
        "benchmark": 5,
        "judge": 1,
        "report": 1,
    }


def test_a_benchmark_is_one_task_for_each_checkpoint():
    """So that a preemption interrupts one checkpoint only."""
    plan = plan_of(benchmark={**BENCHMARK, "checkpoints": ["epoch-3", "base"]})
    assert plan.stage("benchmark").tasks == 2


def test_the_plan_names_its_spec():
    spec = parse_spec({"name": "a", "model": {"path": "m"}, "data": {"train": ["d.jsonl"]}})
    plan = make_plan(spec)
    assert (plan.name, plan.digest) == ("a", spec.digest())
    assert Plan.model_validate_json(plan.model_dump_json()) == plan, "jobs read it back from plan.json"


SHARED = {
    "partition": "gpu",
    "account": "lab",
    "qos": "long",
    "constraint": "a100",
    "cpus_per_task": 4,
    "mem_gb": 64.0,
    "time": "06:00:00",
}
OWN = {
    "partition": "cpu",
    "account": "other",
    "qos": "short",
    "constraint": "v100",
    "cpus_per_task": 16,
    "mem_gb": 8.0,
    "time": "00:30:00",
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("field", SHARED)
def test_a_stage_takes_over_what_it_leaves_out(stage, field):
    plan = plan_of({**SHARED, stage: {field: OWN[field]}}, {}, benchmark=BENCHMARK)
    for name in STAGES:
        asked = plan.stage(name).model_dump(include=set(SHARED))
        assert asked == ({**SHARED, field: OWN[field]} if name == stage else SHARED), name


def test_time_limits_have_defaults_for_each_stage():
    plan = plan_of(evaluate={}, benchmark=BENCHMARK)
    assert {stage.name: stage.time for stage in plan.stages} == DEFAULT_TIME


def test_a_time_limit_is_rounded_up_to_whole_minutes():
    """submitit passes whole minutes on; rounded down, 30 seconds would be no limit at all."""
    assert plan_of({"time": "00:00:30"}).stage("train").time_min == 1
    assert plan_of({"time": "1-00:00:01"}).stage("train").time_min == 1441


def test_gpus_go_to_the_stages_that_compute():
    plan = plan_of({"gpus_per_node": 8}, {"judge": {"kind": "local", "model": "m"}}, benchmark=BENCHMARK)
    assert {stage.name: stage.gpus_per_node for stage in plan.stages} == {
        "preprocess": 0,
        "train": 8,
        "generate": 1,
        "benchmark": 1,
        "judge": 1,
        "report": 0,
    }


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_an_endpoint_that_judges_takes_no_gpu(kind):
    plan = plan_of({"gpus_per_node": 8}, {"judge": {"kind": kind}})
    assert plan.stage("judge").gpus_per_node == 0


def test_a_stage_may_do_without_the_clusters_gpus():
    """0 is a value, not a gap: a judge behind an API needs no GPU."""
    plan = plan_of({"gpus_per_node": 8, "judge": {"gpus_per_node": 0}, "generate": {"gpus_per_node": 1}}, {})
    assert plan.stage("judge").gpus_per_node == 0
    assert plan.stage("generate").gpus_per_node == 1


def test_training_has_one_task_per_gpu():
    stage = plan_of({"train": {"nodes": 4, "gpus_per_node": 8}}).stage("train")
    assert (stage.nodes, stage.tasks_per_node, stage.world_size) == (4, 8, 32)
    stage = plan_of({"train": {"gpus_per_node": 8, "tasks_per_node": 8}}).stage("train")
    assert stage.tasks_per_node == 8


def test_training_on_cpus_has_the_tasks_that_were_asked_for():
    stage = plan_of({"train": {"nodes": 2, "gpus_per_node": 0, "tasks_per_node": 3}}, train={"global_batch_size": 12})
    assert (stage.stage("train").gpus_per_node, stage.stage("train").world_size) == (0, 6)
    assert plan_of().stage("train").world_size == 1


def test_another_number_of_tasks_than_gpus_is_refused():
    with pytest.raises(SpecError) as caught:
        plan_of({"train": {"gpus_per_node": 8, "tasks_per_node": 4}})
    assert caught.value.lines() == [
        "error: cluster.train.tasks_per_node: one task per GPU: leave it out or give 8; given 4"
    ]


def test_several_nodes_are_refused_on_this_machine():
    with pytest.raises(SpecError) as caught:
        plan_of({"kind": "local", "train": {"nodes": 2}})
    assert caught.value.lines() == ["error: cluster.train.nodes: the local cluster is this one machine: 1; given 2"]


def test_all_problems_are_told_at_once():
    with pytest.raises(SpecError) as caught:
        plan_of(
            {"kind": "local", "train": {"nodes": 3, "gpus_per_node": 2, "tasks_per_node": 4}},
            train={"global_batch_size": 7},
        )
    assert [problem.path for problem in caught.value.problems] == [
        "cluster.train.tasks_per_node",
        "cluster.train.nodes",
        "train.global_batch_size",
    ]


@pytest.mark.parametrize(
    ("global_batch_size", "micro_batch_size", "world_size", "steps"),
    [(64, 2, 32, 1), (64, 2, 4, 8), (1, 1, 1, 1), (96, 3, 8, 4)],
)
def test_accumulation_steps(global_batch_size, micro_batch_size, world_size, steps):
    assert split_batch(global_batch_size, micro_batch_size, world_size) == steps
    assert global_batch_size == micro_batch_size * world_size * steps


@pytest.mark.parametrize(
    ("global_batch_size", "micro_batch_size", "world_size", "nearest"),
    [
        (60, 2, 8, r"= 16; nearest: 48 or 64$"),
        (65, 2, 8, r"= 16; nearest: 64 or 80$"),
        (10, 4, 4, r"= 16; nearest: 16$"),  # below one unit there is nothing
    ],
)
def test_a_remainder_names_the_nearest_batch_sizes(global_batch_size, micro_batch_size, world_size, nearest):
    with pytest.raises(ValueError, match=nearest):
        split_batch(global_batch_size, micro_batch_size, world_size)


def test_a_remainder_is_a_problem_of_the_spec():
    with pytest.raises(SpecError) as caught:
        plan_of({"train": {"nodes": 2, "gpus_per_node": 4}}, train={"global_batch_size": 60, "micro_batch_size": 2})
    assert caught.value.lines() == [
        "error: train.global_batch_size: global_batch_size 60 is no multiple of micro_batch_size 2 x 8 ranks = 16; "
        "nearest: 48 or 64"
    ]


def test_the_batch_of_the_plan():
    plan = plan_of({"train": {"nodes": 2, "gpus_per_node": 4}}, train={"global_batch_size": 64, "micro_batch_size": 2})
    assert plan.batch.model_dump() == {
        "global_batch_size": 64,
        "micro_batch_size": 2,
        "world_size": 8,
        "accumulation_steps": 4,
        "tokens_per_step": 64 * 1024,
    }
