"""The `benchmark` section: tasks of lm-evaluation-harness."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from hpcsft.spec.base import Name, Path, Section

TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+:@,() -]{0,199}$")]
"""Becomes part of a file name. The names of all tasks that come with lm-evaluation-harness are of this kind."""


class BenchmarkSpec(Section):
    """Tasks of lm-evaluation-harness on the checkpoints."""

    tasks: Annotated[list[TaskName], Field(min_length=1)]
    """Names of tasks, groups or tags, as lm-evaluation-harness calls them."""

    include_path: Path | None = None
    """Folder with task files (YAML) of your own; functions that they name are run. Files that tasks name without a full
    path are looked for here. null: only the tasks that come with lm-evaluation-harness."""

    checkpoints: Literal["all"] | Annotated[list[Name], Field(min_length=1)] = "all"
    """all is the base model and every epoch; or a list of base, epoch-1, epoch-2, ..."""

    num_fewshot: NonNegativeInt | None = None
    """Worked examples before each question; null is each task's own number. A task that fixes it at 0 keeps that."""

    limit: PositiveInt | None = None
    """Only so many rows of each task, for a trial; null is all."""

    batch_size: PositiveInt = 8
    """Requests that are computed together."""

    apply_chat_template: bool = False
    """Give questions in the chat template of training, to every checkpoint alike; false gives them as plain text."""

    @field_validator("tasks")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("each task once")
        return value
