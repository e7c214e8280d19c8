"""Run directories for tests that need one to look at, made without running anything."""

from __future__ import annotations

import socket
from typing import Any

from hpcsft.plan import Plan, make_plan
from hpcsft.records import StageStatus, Submission, SubmittedStage, now, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec

JOB_ID = "local-4194304"
"""A process id over Linux's highest: a driver that runs no more, for sure."""


def finished_run(values: dict[str, Any]) -> RunDir:
    """A run of the spec `values` whose stages are all done, submitted to this machine."""
    spec = parse_spec(values)
    plan = make_plan(spec)
    run = RunDir(spec.run_path)
    run.create()
    write_json(run.plan, plan)
    write_json(run.spec, spec)
    jobs = [
        SubmittedStage(stage=stage.name, job_id=JOB_ID, depends_on=[], tasks=stage.tasks, submitted=now())
        for stage in plan.stages
    ]
    run.write_submission(Submission(cluster="local", host=socket.gethostname(), jobs=jobs))
    for stage in plan.stages:
        for index in range(stage.tasks):
            set_status(run, plan, stage.name, index, "done")
    return run


def set_status(run: RunDir, plan: Plan, stage: str, index: int, state: str, message: str | None = None) -> None:
    """Let one task say that it is in `state`."""
    tasks = plan.stage(stage).tasks
    job_id = f"{JOB_ID}_{index}" if tasks > 1 else JOB_ID
    status = StageStatus(stage=stage, index=index, state=state, attempt=1, job_id=job_id, message=message)
    write_json(run.status_file(stage, index, tasks), status)
