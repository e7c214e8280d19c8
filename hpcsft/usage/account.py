"""The facts about one stage -> what it has used. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from hpcsft.plan import StagePlan
from hpcsft.usage.attempts import Attempt, milliseconds
from hpcsft.usage.record import Hours, Part, Saves, StageUsage, Unit
from hpcsft.usage.training import Step, split


@dataclass(frozen=True)
class Training:
    """What the metrics tell of training."""

    steps: Sequence[Step] = ()
    validated_ms: Sequence[int] = ()
    """When each validation loss was written."""
    memory_gb: float | None = None
    """Most memory of a rank, of its GPU if it has one."""


@dataclass(frozen=True)
class StageFacts:
    """One stage that has started."""

    stage: StagePlan
    tasks: Sequence[Sequence[Attempt]]
    """The attempts of each task that has started."""
    done: bool
    submitted_ms: Mapping[str, int]
    """Job id -> when it was submitted."""
    before_ms: Sequence[int]
    """When the tasks that it depends on were done."""
    training: Training | None = None
    """Of the stage `train`."""


def stage_usage(facts: StageFacts) -> tuple[StageUsage, Counter[Part]]:
    """What a stage has used; and the same milliseconds times units by part, for the total."""
    stage, tasks = facts.stage, facts.tasks
    attempts = [attempt for task in tasks for attempt in task]
    restarts = Counter(attempt.cause for task in tasks for attempt in task[:-1])
    waits_ms = {task[0].begin_ms: _waits_ms(facts, task) for task in tasks}
    parts = _parts(facts)
    unit = unit_of(stage)
    limited = [attempt.duration_ms for attempt in attempts if not attempt.by_hand]
    usage = StageUsage(
        stage=stage.name,
        done=facts.done,
        attempts=len(attempts),
        restarts=dict(restarts),
        queue_s=waits_ms[min(waits_ms)][0] / 1000,
        requeue_s=max(sum(_waits_ms(facts, task)[1:]) for task in tasks) / 1000,
        allocated_s=sum(attempt.duration_ms for attempt in attempts) / 1000,
        longest_task_s=max(sum(attempt.duration_ms for attempt in task) for task in tasks) / 1000,
        longest_attempt_s=max(limited, default=0) / 1000,
        limit_s=stage.time_min * 60,
        hours=Hours.of(unit, parts),
        asked_memory_gb=stage.mem_gb,
        **_memory(facts, attempts),
        steps_again=sum(row["lost_steps"] for attempt in attempts for row in attempt.rows if row["event"] == "resumed"),
        saves=_saves(attempts),
    )
    return usage, parts


def unit_of(stage: StagePlan) -> Unit:
    """What the hours of a stage count."""
    if stage.gpus_per_node:
        return "GPU-hours"
    return "CPU-hours" if stage.cpus_per_task else "process-hours"


def _units(stage: StagePlan, attempt: Attempt) -> int:
    """How many of them an attempt had. Training may go on with another number of processes."""
    world_size = attempt.world_size or stage.world_size
    if stage.gpus_per_node:
        return world_size * stage.gpus_per_node // stage.tasks_per_node
    return world_size * (stage.cpus_per_task or 1)


def _parts(facts: StageFacts) -> Counter[Part]:
    """Milliseconds times units."""
    parts: Counter[Part] = Counter()
    for task in facts.tasks:
        training = facts.training
        shares = split(task, training.steps, training.validated_ms) if training else _other(task)
        for attempt, share in zip(task, shares, strict=True):
            for part, duration_ms in share.items():
                parts[part] += duration_ms * _units(facts.stage, attempt)
    return parts


def _other(task: Sequence[Attempt]) -> list[Counter[Part]]:
    """Stages other than training."""
    return [Counter({"work" if attempt.kept else "nothing_kept": attempt.duration_ms}) for attempt in task]


def _waits_ms(facts: StageFacts, task: Sequence[Attempt]) -> list[int]:
    """How long each attempt was waited for, from the moment at which it could have started."""
    waits = []
    before: Attempt | None = None
    for attempt in task:
        since_ms = [before.end_ms] if before else []
        if before is None or before.job_id != attempt.job_id:
            since_ms += [facts.submitted_ms.get(attempt.job_id, attempt.begin_ms)]
            since_ms += [moment for moment in facts.before_ms if moment <= attempt.begin_ms]
        waits.append(0 if attempt.by_hand else max(0, attempt.begin_ms - max(since_ms)))
        before = attempt
    return waits


def _memory(facts: StageFacts, attempts: Sequence[Attempt]) -> dict[str, float | None]:
    """The fields of StageUsage that tell it; the rows of an attempt tell of one process."""

    def largest(name: str) -> float | None:
        return max((row[name] for attempt in attempts for row in attempt.rows if name in row), default=None)

    host, seen = largest("memory_gb"), facts.training.memory_gb if facts.training else None
    on_gpu = facts.stage.gpus_per_node > 0
    if seen is not None and not on_gpu:
        host = max(host or 0.0, seen)
    return {
        "memory_gb": None if host is None else round(host * facts.stage.tasks_per_node, 3),
        "gpu_memory_gb": seen if on_gpu else None,
        "gpu_total_gb": largest("gpu_total_gb"),
    }


def _saves(attempts: Sequence[Attempt]) -> Saves | None:
    rows = [[row for row in attempt.rows if row["event"] in ("resumed", "saved")] for attempt in attempts]
    saved = [row for own in rows for row in own if row["event"] == "saved"]
    times_ms = [[milliseconds(row["time"]) for row in own] for own in rows]
    gaps_ms = [after - before for own in times_ms for before, after in pairwise(own)]
    if not saved or not gaps_ms:
        return None
    return Saves(
        every_s=median(gaps_ms) / 1000,
        held_s=fmean(row["held_s"] for row in saved),
        took_s=max(row["took_s"] for row in saved),
    )
