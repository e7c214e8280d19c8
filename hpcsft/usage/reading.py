"""Reads what the usage of a run is computed from, line by line. It only reads."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence

from hpcsft.attempt.journal import Row, all_rows
from hpcsft.plan import Plan, StagePlan
from hpcsft.records import StageStatus, Submission, read_json, read_jsonl
from hpcsft.rundir import RunDir
from hpcsft.usage.account import StageFacts, Training, stage_usage
from hpcsft.usage.advice import advise
from hpcsft.usage.attempts import Attempt, attempts_of, milliseconds
from hpcsft.usage.record import Hours, Part, StageUsage, Unit, Usage
from hpcsft.usage.training import Step


def usage_of(run: RunDir) -> Usage | None:
    """What `run` has used so far; None before anything of it has started."""
    plan = Plan.model_validate(read_json(run.plan))
    submission = run.read_submission()
    statuses = {(status.stage, status.index): status for status in run.read_statuses()}
    stages: list[StageUsage] = []
    totals: dict[Unit, Counter[Part]] = {}
    done_ms: dict[str, list[int]] = {}
    for stage in plan.stages:
        rows = all_rows(run, stage.name)
        done_ms[stage.name] = [milliseconds(row["time"]) for row in rows if row["event"] == "done"]
        if not rows:
            continue
        training = _training(run) if stage.name == "train" else None
        seen_ms = [*_beats_ms(run), *(step.time_ms for step in training.steps)] if training else []
        facts = StageFacts(
            stage=stage,
            tasks=_tasks(stage, rows, statuses, seen_ms),
            done=all(_is_done(statuses.get((stage.name, index))) for index in range(stage.tasks)),
            submitted_ms=_submitted_ms(submission, stage.name),
            before_ms=[moment for name in stage.depends_on for moment in done_ms[name]],
            training=training,
        )
        usage, parts = stage_usage(facts)
        stages.append(usage)
        totals.setdefault(usage.hours.unit, Counter()).update(parts)
    if not stages:
        return None
    in_slurm = submission is not None and submission.cluster == "slurm"
    return Usage(
        stages=stages,
        totals=[Hours.of(unit, parts) for unit, parts in totals.items()],
        advice=advise(stages, plan, in_slurm),
    )


def _is_done(status: StageStatus | None) -> bool:
    return status is not None and status.state == "done"


def _submitted_ms(submission: Submission | None, stage: str) -> dict[str, int]:
    """When each job of a stage was submitted."""
    jobs = submission.jobs if submission else []
    return {job.job_id: milliseconds(job.submitted) for job in jobs if job.stage == stage and job.submitted}


def _tasks(
    stage: StagePlan, rows: Sequence[Row], statuses: Mapping[tuple[str, int], StageStatus], seen_ms: Sequence[int]
) -> list[list[Attempt]]:
    """The attempts of each task that has started; `seen_ms` are signs of life besides journal and status."""
    by_index: dict[int, list[Row]] = {}
    for row in rows:
        by_index.setdefault(row["index"], []).append(row)
    tasks = []
    for index, own in sorted(by_index.items()):
        status = statuses.get((stage.name, index))
        updated_ms = [milliseconds(status.updated)] if status and status.updated else []
        done_items = status.progress.done if status and status.progress else 0
        tasks.append(attempts_of(own, sorted([*seen_ms, *updated_ms]), done_items))
    return tasks


def _beats_ms(run: RunDir) -> list[int]:
    """When each rank of the newest attempt at training gave its last recorded sign of life."""
    found = []
    for file in run.heartbeat.glob("[0-9]*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):  # not written durably: a node may have gone
            found.append(milliseconds(read_json(file)["updated"]))
    return found


def _training(run: RunDir) -> Training:
    steps, memory_gb = [], 0.0
    for row in read_jsonl(run.metrics):
        elapsed_s = row["tokens"] / row["tokens_per_s"] if row.get("tokens_per_s") else 0.0
        memory_gb = max(memory_gb, row.get("memory_gb", 0.0))
        ends_epoch = row["epoch"] == int(row["epoch"])
        time_ms, data_ms = milliseconds(row["time"]), round(row.get("data_s", 0.0) * 1000)
        steps.append(Step(row["step"], time_ms, round(elapsed_s * 1000), data_ms, ends_epoch))
    validated_ms = [milliseconds(row["time"]) for row in read_jsonl(run.validation)]
    return Training(steps, validated_ms, memory_gb or None)
