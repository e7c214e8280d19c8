"""Runs in every situation, as facts: what was submitted, what the tasks said, what the queue holds."""

from __future__ import annotations

from typing import Any

from hpcsft.monitor.state.facts import Facts
from hpcsft.monitor.state.run import RunState, StageState, run_state
from hpcsft.plan import Plan, make_plan
from hpcsft.records import Progress, StageStatus, SubmittedStage
from hpcsft.slurm_queue import QueueEntry
from hpcsft.spec import parse_spec

VALUES: dict[str, Any] = {
    "name": "tiny",
    "model": {"path": "/models/tiny"},
    "data": {"train": ["/data/a.jsonl"]},
    "train": {"global_batch_size": 8, "micro_batch_size": 2, "epochs": 2},
    "evaluate": {"prompts": "/data/p.json", "shards": 3, "judge": {"kind": "local", "model": "/models/tiny"}},
}
PLAN: Plan = make_plan(parse_spec(VALUES))
IDS = {"preprocess": "101", "train": "102", "generate": "103", "judge": "104", "report": "105"}


def said(stage: str, state: str, *, index: int = 0, job_id: str | None = None, **more: Any) -> StageStatus:
    """What a task of a stage said last."""
    tasks = PLAN.stage(stage).tasks
    job = job_id or IDS[stage]
    return StageStatus(
        stage=stage, index=index, state=state, attempt=1, job_id=f"{job}_{index}" if tasks > 1 else job, **more
    )


def queued(stage: str, state: str, *, index: int = 0, reason: str = "None", job_id: str | None = None) -> QueueEntry:
    """A line of squeue."""
    return QueueEntry(job_id or IDS[stage], index, state, reason, "1:23", "12:00:00")


def facts(
    *known: StageStatus | QueueEntry,
    ids: dict[str, str] | None = None,
    local: bool | None = None,
    plan: Plan = PLAN,
    **more: Any,
) -> Facts:
    """`known` holds statuses and squeue's lines in any order; `local` is whether the driver lives (None: Slurm)."""
    submitted = {
        stage: SubmittedStage(stage=stage, job_id=job_id, depends_on=[], tasks=plan.stage(stage).tasks, submitted="")
        for stage, job_id in (IDS if ids is None else ids).items()
    }
    given: dict[str, Any] = {
        "run_dir": "/runs/tiny-0123abcd",
        "plan": plan,
        "submitted": submitted,
        "statuses": [entry for entry in known if isinstance(entry, StageStatus)],
        "queue": [entry for entry in known if isinstance(entry, QueueEntry)] if local is None else None,
        "driver_alive": local,
        "cancelled": False,
        "train": {},
    }
    return Facts(**{**given, **more})


def state_of(*known: StageStatus | QueueEntry, **more: Any) -> RunState:
    return run_state(facts(*known, **more))


def stage_of(stage: str, *known: StageStatus | QueueEntry, **more: Any) -> StageState:
    """The state of one stage; stages before it are done."""
    before = PLAN.stage_names[: PLAN.stage_names.index(stage)]
    done = [said(name, "done", index=index) for name in before for index in range(PLAN.stage(name).tasks)]
    return next(s for s in state_of(*done, *known, **more).stages if s.name == stage)


def progress(done: int, total: int = 100, unit: str = "steps") -> Progress:
    return Progress(done=done, total=total, unit=unit)
