"""What a run has used, as the monitor's document tells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from hpcsft.records import Record

Unit = Literal["GPU-hours", "CPU-hours", "process-hours"]
Part = Literal[
    "work", "epoch_ends", "start_again", "steps_again", "nothing_kept", "start", "saving", "data", "hang", "other"
]

COMPUTED: tuple[Part, ...] = ("work", "epoch_ends")
LOST: tuple[Part, ...] = ("start_again", "steps_again", "nothing_kept")
WAITING: tuple[Part, ...] = ("start", "saving", "data", "hang", "other")
MS_PER_HOUR = 3_600_000


class Hours(Record):
    """Allocated hours, and what they went into: total = computed + lost + waiting."""

    unit: Unit
    total: float
    computed: float
    lost: float
    waiting: float
    parts: dict[Part, float]
    """Each of the three in its parts; those that are not zero."""

    @classmethod
    def of(cls, unit: Unit, parts_ms: Mapping[Part, int]) -> Hours:
        """From milliseconds times units."""

        def hours(parts: Iterable[Part]) -> float:
            return sum(parts_ms.get(part, 0) for part in parts) / MS_PER_HOUR

        return cls(
            unit=unit,
            total=hours(parts_ms),
            computed=hours(COMPUTED),
            lost=hours(LOST),
            waiting=hours(WAITING),
            parts={part: milliseconds / MS_PER_HOUR for part, milliseconds in parts_ms.items() if milliseconds},
        )

    def share(self, hours: float) -> float:
        """`hours` as a share of all; 0 of nothing."""
        return hours / self.total if self.total else 0.0


class Saves(Record):
    """The checkpoints of training."""

    every_s: float
    """Time between two of them; the median."""
    held_s: float
    """What one held training up, on average."""
    took_s: float
    """From its beginning until it was published, at most."""


class StageUsage(Record):
    """One stage, all of its tasks together."""

    stage: str
    done: bool
    """Is every task of it done?"""
    attempts: int
    restarts: dict[str, int]
    """What ended attempts that others followed: causes as in the journal; `done` where it was done and done again."""
    queue_s: float
    """Until its first start: from its submission, or from the end of what it depends on if that was later."""
    requeue_s: float
    """From the end of attempts to the next ones; of the task that waited longest. What was submitted anew counts from
    there, what a person started does not count."""
    allocated_s: float
    """Time in allocation, over all attempts and tasks."""
    longest_task_s: float
    """Time in allocation of all attempts of one task, of the task with most."""
    longest_attempt_s: float
    """Of attempts that had a time limit: not those by hand."""
    limit_s: float
    hours: Hours
    memory_gb: float | None = None
    """Most host memory of a node in 10^9 bytes: the largest process times the processes of a node."""
    asked_memory_gb: float | None = None
    gpu_memory_gb: float | None = None
    """Most memory of the tensors of one GPU in 10^9 bytes; training only."""
    gpu_total_gb: float | None = None
    """The memory of that GPU."""
    steps_again: int = 0
    """Steps of training that were done again."""
    saves: Saves | None = None
    """Of training, once there are any."""


class Advice(Record):
    """One thing to ask for the next time, or to know."""

    stage: str | None
    """None: it is about the whole run."""
    text: str
    field: str | None = None
    """What to set in the spec, such as cluster.train.time."""
    value: str | int | float | None = None

    @property
    def setting(self) -> str | None:
        """As it can be pasted after --set."""
        return f"{self.field}={self.value}" if self.field and self.value is not None else None


class Usage(Record):
    """What a run has used so far."""

    stages: list[StageUsage]
    """Those that have started, in the order of the plan."""
    totals: list[Hours]
    """Over all stages, one for each unit."""
    advice: list[Advice]
