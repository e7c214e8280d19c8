"""What to ask for the next time: few things, each only where what was used leaves no doubt. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from hpcsft.plan import BatchPlan, Plan, StagePlan
from hpcsft.usage.record import Advice, StageUsage

WORTH_S = 600.0
"""Of a stage that was in allocation for less than this, figures are chance and nothing is to be gained."""
LITTLE_TIME, MIN_LIMIT_S = 0.5, 1800
"""Of the time limit. Twice the time is what another node or a busy filesystem may cost, and schedulers fill gaps of
hours, not of minutes."""
TIME_FACTOR = 1.5
FRIENDLY_MIN = ((60, 10), (240, 15), (720, 30), (1440, 60), (math.inf, 360))
"""Time limits up to so many minutes are multiples of so many."""
LITTLE_MEMORY, MIN_MEMORY_GB = 0.5, 4
"""Of the memory that was asked. Nobody waits for less than a few GB."""
MEMORY_FACTOR = 1.25
LITTLE_GPU_MEMORY = 0.6
"""The states of a model stay as they are when the micro batch doubles; the rest had better not fill the GPU."""
MUCH_LOST = 0.1
"""Of the hours: a run that is interrupted now and then loses a few percent."""
MUCH_DATA = 0.1
"""Of the hours: rows are read from local shards, which takes less than a percent where storage is fit for it."""
CLUSTER_MADE = ("preemption", "node_failure")
"""Causes that another partition may do without."""
FIRST_SAVE_S = 60.0
"""What a save is taken to hold up where none was measured."""


def advise(stages: Sequence[StageUsage], plan: Plan, in_slurm: bool) -> list[Advice]:
    """Advice on all stages, in their order, and on the run. Without Slurm there are no resources to ask for."""
    found: list[Advice] = []
    for usage in stages:
        stage = plan.stage(usage.stage)
        if in_slurm:
            found += [*_time(usage, stage), *_memory(usage, stage)]
        if usage.allocated_s >= WORTH_S:
            found += [*_micro_batch(usage, stage, plan.batch), *_lost(usage, in_slurm), *_data(usage)]
    return [*found, *(_queue(stages) if in_slurm else ())]


def friendly_time(minutes: float) -> str:
    """A time limit of at least `minutes`, as Slurm writes it: 00:40:00, 06:00:00, 1-12:00:00."""
    unit = next(unit for most, unit in FRIENDLY_MIN if minutes <= most)
    days, rest = divmod(math.ceil(minutes / unit) * unit, 1440)
    return (f"{days}-" if days else "") + f"{rest // 60:02d}:{rest % 60:02d}:00"


def _time(usage: StageUsage, stage: StagePlan) -> Iterator[Advice]:
    """All attempts together count: that is what a run takes that nothing interrupts."""
    times = usage.restarts.get("timeout", 0)
    if times and usage.done:
        text = f"reached its time limit of {stage.time} {_times(times)} and was requeued each time; nothing is wrong"
        yield Advice(stage=usage.stage, text=text)
    share = usage.longest_task_s / usage.limit_s
    if usage.done and usage.longest_attempt_s and share < LITTLE_TIME and usage.limit_s > MIN_LIMIT_S:
        together = " with all attempts together" if usage.restarts else ""
        yield Advice(
            stage=usage.stage,
            text=f"used {share:.0%} of the time limit{together}; shorter jobs are scheduled sooner",
            field=f"cluster.{usage.stage}.time",
            value=friendly_time(usage.longest_task_s / 60 * TIME_FACTOR),
        )


def _memory(usage: StageUsage, stage: StagePlan) -> Iterator[Advice]:
    """Not of training on GPUs: whether the pages that CUDA locks are counted depends on its driver."""
    used, asked = usage.memory_gb, usage.asked_memory_gb
    if not usage.done or not used or not asked or asked < MIN_MEMORY_GB or used / asked >= LITTLE_MEMORY:
        return
    if usage.stage == "train" and stage.gpus_per_node:
        return
    yield Advice(
        stage=usage.stage,
        text=f"used {used / asked:.0%} of the memory of a node that was asked for",
        field=f"cluster.{usage.stage}.mem_gb",
        value=math.ceil(used * MEMORY_FACTOR),
    )


def _micro_batch(usage: StageUsage, stage: StagePlan, batch: BatchPlan) -> Iterator[Advice]:
    used, there = usage.gpu_memory_gb, usage.gpu_total_gb
    larger = 2 * batch.micro_batch_size
    fits = batch.global_batch_size % (larger * stage.world_size) == 0 and "out_of_memory" not in usage.restarts
    if usage.done and used and there and used / there < LITTLE_GPU_MEMORY and fits:
        text = f"used at most {used / there:.0%} of a GPU's memory; a larger micro batch may be faster"
        yield Advice(stage=usage.stage, text=text, field="train.micro_batch_size", value=larger)


def _lost(usage: StageUsage, in_slurm: bool) -> Iterator[Advice]:
    hours = usage.hours
    if hours.share(hours.lost) <= MUCH_LOST or not usage.restarts:
        return
    saves = usage.saves
    again = hours.parts.get("steps_again", 0.0) + hours.parts.get("nothing_kept", 0.0)
    minutes = _best_save_min(usage)
    late = saves is None or saves.every_s > 60 * minutes
    text = f"lost {hours.share(hours.lost):.0%} of its {hours.unit} to restarts"
    if usage.stage == "train" and again > hours.lost / 2 and late:
        text += "; it never saved" if saves is None else f"; it saved every {saves.every_s / 60:.0f} min"
        yield Advice(stage=usage.stage, text=text, field="train.checkpoint.every_minutes", value=minutes)
    elif in_slurm and sum(usage.restarts.get(cause, 0) for cause in CLUSTER_MADE) > sum(usage.restarts.values()) / 2:
        text += "; a partition or qos that is not preempted would help"
        yield Advice(stage=usage.stage, text=text, field=f"cluster.{usage.stage}.partition")


def _best_save_min(usage: StageUsage) -> int:
    """Minutes between saves at which what they hold up and what is done again are least, together.

    Young, "A first order approximation to the optimum checkpoint interval", CACM 17 (1974): sqrt(2 x time of a save x
    time between failures). A save is written before the next one begins.
    """
    between_s = usage.allocated_s / sum(usage.restarts.values())
    held_s, took_s = (usage.saves.held_s, usage.saves.took_s) if usage.saves else (FIRST_SAVE_S, FIRST_SAVE_S)
    return max(1, math.ceil(max(math.sqrt(2 * held_s * between_s), 2 * took_s) / 60))


def _data(usage: StageUsage) -> Iterator[Advice]:
    share = usage.hours.share(usage.hours.parts.get("data", 0.0))
    if share > MUCH_DATA:
        text = f"waited for data in {share:.0%} of its time; a faster filesystem for runs_dir or more CPUs would help"
        yield Advice(stage=usage.stage, text=text, field=f"cluster.{usage.stage}.cpus_per_task")


def _queue(stages: Sequence[StageUsage]) -> Iterator[Advice]:
    queued_s = sum(usage.queue_s + usage.requeue_s for usage in stages)
    ran_s = sum(usage.longest_task_s for usage in stages)
    if queued_s > max(ran_s, WORTH_S):
        text = "waited in the queue for longer than it ran; smaller or shorter jobs start sooner"
        yield Advice(stage=None, text=text)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
