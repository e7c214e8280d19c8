"""Journals and metrics of runs that never ran, told row by row on a clock of their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from hpcsft.plan import StagePlan
from hpcsft.rundir import RunDir
from hpcsft.usage.account import StageFacts, stage_usage
from hpcsft.usage.attempts import Attempt, attempts_of
from hpcsft.usage.record import StageUsage
from hpcsft.usage.training import Step

BEGIN_MS = 1_790_000_000_000


def time(at_ms: int) -> str:
    """`at_ms` after the beginning of the story, as records write it."""
    return datetime.fromtimestamp((BEGIN_MS + at_ms) / 1000, timezone.utc).isoformat(timespec="milliseconds")


class Story:
    """What one task writes. Every call moves the clock on by so many seconds first, and then writes."""

    def __init__(self, stage: str = "train", index: int = 0, job_id: str = "7", at_s: float = 0.0):
        self.stage, self.index, self.job_id, self.restart = stage, index, job_id, 0
        self.at_ms = round(at_s * 1000)
        self.rows: list[dict[str, Any]] = []
        self.metrics: list[dict[str, Any]] = []
        self.validation: list[dict[str, Any]] = []

    def passes(self, after_s: float) -> None:
        self.at_ms += round(after_s * 1000)

    def row(self, event: str, after_s: float = 0.0, *, restart: int | None = None, **facts: Any) -> None:
        self.passes(after_s)
        token = {"job_id": self.job_id, "restart": self.restart if restart is None else restart}
        where = {"stage": self.stage, "index": self.index, "host": "n1"}
        self.rows.append({"time": time(self.at_ms), "event": event, **where, **token, **facts})

    def start(self, after_s: float = 0.0, *, world_size: int = 2, done: int = 0, **facts: Any) -> None:
        self.row("start", after_s, world_size=world_size, done=done, attempt=1, **facts)

    def resumed(self, after_s: float, step: int = 0) -> None:
        """Training goes on after `step`; what stood beyond is forgotten."""
        kept = [row for row in self.metrics if row["step"] <= step]
        self.row("resumed", after_s, step=step, lost_steps=len(self.metrics) - len(kept))
        self.metrics = kept
        self.validation = [row for row in self.validation if 0 < row["step"] <= step]

    def step(self, elapsed_s: float, data_s: float = 0.0, after_s: float = 0.0, per_epoch: int = 10) -> int:
        self.passes(after_s + elapsed_s)
        number = self.metrics[-1]["step"] + 1 if self.metrics else 1
        row = {"step": number, "epoch": round(number / per_epoch, 4), "tokens": 1000, "memory_gb": 2.0}
        row |= {"tokens_per_s": 1000 / elapsed_s, "data_s": data_s, "time": time(self.at_ms)}
        self.metrics.append(row)
        return number

    def validated(self, after_s: float, step: int) -> None:
        self.passes(after_s)
        self.validation.append({"checkpoint": "x", "epoch": 0, "step": step, "loss": 1.0, "time": time(self.at_ms)})

    def end(self, after_s: float, cause: str, *, progressed: bool = True, **facts: Any) -> None:
        """The row of the batch script; without `status` it is the next attempt that looks back."""
        self.row("end", after_s, cause=cause, progressed=progressed, **facts)

    def requeued(self, after_s: float) -> None:
        self.passes(after_s)
        self.restart += 1

    def attempts(self, seen_s: Sequence[float] = (), done_items: int = 0) -> list[Attempt]:
        seen_ms = [BEGIN_MS + round(moment * 1000) for moment in seen_s] + [step.time_ms for step in self.steps()]
        return attempts_of(self.rows, sorted(seen_ms), done_items)

    def steps(self) -> list[Step]:
        return [
            Step(
                row["step"],
                BEGIN_MS + _ms(row["time"]),
                round(row["tokens"] / row["tokens_per_s"] * 1000),
                round(row["data_s"] * 1000),
                row["epoch"] == int(row["epoch"]),
            )
            for row in self.metrics
        ]

    def validated_ms(self) -> list[int]:
        return [BEGIN_MS + _ms(row["time"]) for row in self.validation]

    def write(self, run: RunDir, tasks: int = 1) -> None:
        """As the files of a run."""
        files = {run.journal_file(self.stage, self.index, tasks): self.rows}
        if self.stage == "train":
            files |= {run.metrics: self.metrics, run.validation: self.validation}
        for file, rows in files.items():
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000) - BEGIN_MS


def stage(name: str = "train", **given: Any) -> StagePlan:
    """A stage of two CPU processes for training, of one for the others."""
    values = {"depends_on": [], "tasks": 1, "nodes": 1, "tasks_per_node": 2 if name == "train" else 1}
    values |= {"gpus_per_node": 0, "cpus_per_task": None, "mem_gb": None, "time": "10:00:00"}
    values |= {"partition": None, "account": None, "qos": None, "constraint": None}
    return StagePlan(name=name, **{**values, **given})


def usage(*tasks: list[Attempt], plan: StagePlan | None = None, **given: Any) -> StageUsage:
    """What a stage other than training used, by the facts that are `given`."""
    values: dict[str, Any] = {"done": True, "submitted_ms": {}, "before_ms": [], "training": None, **given}
    return stage_usage(StageFacts(stage=plan or stage("generate"), tasks=tasks, **values))[0]
