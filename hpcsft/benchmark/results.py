"""What was measured, in files.

benchmark/CHECKPOINT/tasks/TASK.json   one task, group or tag of the spec, written when it is finished
benchmark/CHECKPOINT/results.json      all of them, written last
"""

from __future__ import annotations

from pathlib import Path

from hpcsft.records import Record, read_json
from hpcsft.rundir import RunDir


class Metric(Record):
    """One figure."""

    value: float | None
    """None where it is not a number."""
    stderr: float | None
    """Its standard error; None where lm-evaluation-harness has none."""


class Settings(Record):
    """How it was measured. Only figures of the same settings are put together."""

    num_fewshot: int | None
    """None is each task's own number."""
    limit: int | None
    apply_chat_template: bool
    seed: int
    lm_eval_version: str


class Results(Record):
    """The figures of one checkpoint, or of one of its tasks."""

    tasks: dict[str, dict[str, Metric]]
    """By task or group, then by "METRIC,FILTER" as lm-evaluation-harness names it. A group without figures is empty."""
    num_rows: dict[str, int]
    """Rows that were answered, by task."""
    num_fewshot: dict[str, int]
    """Worked examples that were given, by task."""
    higher_is_better: dict[str, dict[str, bool]]
    """By task and METRIC, where lm-evaluation-harness says."""
    settings: Settings
    sources: dict[str, str] = {}
    """By task, group or tag of the spec, what `task_digest` says of its files: other files, other figures."""


def results_file(run: RunDir, checkpoint: str) -> Path:
    """All figures of a checkpoint."""
    return run.benchmark / checkpoint / "results.json"


def task_file(run: RunDir, checkpoint: str, task: str) -> Path:
    """The figures of one task, group or tag of the spec."""
    return run.benchmark / checkpoint / "tasks" / f"{task}.json"


def read_results(path: Path) -> Results | None:
    """What is in `path`; None if it is not there. ValueError if it is damaged."""
    try:
        return Results.model_validate(read_json(path))
    except FileNotFoundError:
        return None


def join(parts: list[Results]) -> Results:
    """The figures of several tasks, in their order, as one. All have the same settings."""
    return Results(
        tasks={name: figures for part in parts for name, figures in part.tasks.items()},
        num_rows={name: number for part in parts for name, number in part.num_rows.items()},
        num_fewshot={name: number for part in parts for name, number in part.num_fewshot.items()},
        higher_is_better={name: better for part in parts for name, better in part.higher_is_better.items()},
        settings=parts[0].settings,
        sources={name: digest for part in parts for name, digest in part.sources.items()},
    )
