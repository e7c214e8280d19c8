"""report.json: what a run found out. Light, so that commands can show it."""

from __future__ import annotations

from typing import Any

from hpcsft.evaluate.checks import Checks
from hpcsft.evaluate.generation.conditions import Conditions
from hpcsft.evaluate.scores.paired import Difference
from hpcsft.evaluate.scores.published import Setting
from hpcsft.evaluate.scores.summary import Scores
from hpcsft.records import Record


class ModelResult(Record):
    """One row of the table: a checkpoint, or another model that was judged alike."""

    name: str
    """base, epoch-1, ...; or the name in evaluate.outputs."""
    is_checkpoint: bool
    validation_loss: float | None
    scores: Scores | None
    checks: Checks | None
    """What is wrong with its answers."""
    generation: Conditions | None
    """How its answers were made."""


class BenchmarkValue(Record):
    """One figure of lm-evaluation-harness, as it names and scales it."""

    task: str
    metric: str
    values: dict[str, float | None]
    """Checkpoint -> value."""
    standard_errors: dict[str, float | None]


class LeaderboardRow(Record):
    """A row of a leaderboard.csv in AlpacaEval's format."""

    name: str
    source: str
    win_rate: float
    standard_error: float | None
    n_total: int | None
    avg_length: int | None


class Results(Record):
    """report.json."""

    name: str
    run_dir: str
    setting: Setting | None
    """Judge, reference, orders and prompts; None for a run without evaluation."""
    models: list[ModelResult]
    differences: list[Difference]
    noise: str
    """Which differences are noise, in one sentence."""
    benchmarks: list[BenchmarkValue]
    benchmark_settings: dict[str, Any]
    leaderboards: list[LeaderboardRow]
    training: dict[str, Any]
    data: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def scored(self) -> list[tuple[str, Scores]]:
        """Names and scores of the models that were judged."""
        return [(model.name, model.scores) for model in self.models if model.scores]
