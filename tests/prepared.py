"""A prepared run directory and a task's context, as a job body finds them."""

from __future__ import annotations

from typing import Any

from hpcsft.attempt.identity import TaskIdentity
from hpcsft.cluster.submit import prepare_run
from hpcsft.plan import Plan, make_plan
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec, parse_spec
from hpcsft.stage import StageContext

TASK = TaskIdentity(job_id="test-1", restart=0, rank=0, local_rank=0, world_size=1)


def new_run(values: dict[str, Any]) -> RunDir:
    """The run directory that submit would prepare for the spec `values`."""
    spec = parse_spec(values)
    run = RunDir(spec.run_path)
    prepare_run(spec, make_plan(spec), run, ["pytest"])
    return run


def context_of(run: RunDir, stage: str, index: int = 0, task: TaskIdentity = TASK) -> StageContext:
    """The context that `run_stage` would give to the body of `stage`."""
    spec = ExperimentSpec.model_validate(read_json(run.spec))
    plan = Plan.model_validate(read_json(run.plan))
    return StageContext(run, spec, plan, plan.stage(stage), index, task)


def begun(run: RunDir, stage: str, index: int = 0, task: TaskIdentity = TASK) -> StageContext:
    """The same after it has taken the task over from the attempts before it."""
    context = context_of(run, stage, index, task)
    context.fence.claim()
    return context
