"""Results as tables of text, the same for Markdown and for a terminal. Pure."""

from __future__ import annotations

from hpcsft.evaluate.checks import KINDS
from hpcsft.evaluate.scores import grids
from hpcsft.evaluate.scores.grids import Grid, number
from hpcsft.report.document import Results

FIRST_COLUMN = "checkpoint"


def main_table(results: Results) -> Grid:
    """Validation loss and win rate side by side, so that overfitting is seen; without evaluation the losses alone."""
    if results.setting is None:
        rows = [[model.name, number(model.validation_loss, 4)] for model in results.models]
        return Grid([FIRST_COLUMN, "validation loss"], rows)
    losses = Grid(
        [FIRST_COLUMN, "val. loss"], [[m.name, number(m.validation_loss, 4)] for m in results.models if m.scores]
    )
    return grids.joined(losses, grids.win_rates(results.scored))


def hidden_tables(results: Results) -> list[Grid]:
    """What the win rate hides: the order of the answers, and what is wrong with them. None without evaluation."""
    if results.setting is None:
        return []
    counts = [
        [model.name, *(str(getattr(model.checks, kind)) if model.checks else grids.NONE for kind in KINDS)]
        for model in results.models
        if model.scores
    ]
    checks = Grid([FIRST_COLUMN, *KINDS], counts)
    positions = grids.positions(results.scored)
    return [positions._replace(header=[FIRST_COLUMN, *positions.header[1:]]), checks]


def benchmark_table(results: Results) -> Grid | None:
    """A row per figure of lm-evaluation-harness, a column per checkpoint."""
    names = list(dict.fromkeys(name for row in results.benchmarks for name in row.values))
    rows = [
        [
            f"{row.task} {row.metric.removesuffix(',none')}",
            *(_with_error(row.values.get(name), row.standard_errors.get(name)) for name in names),
        ]
        for row in results.benchmarks
    ]
    return Grid(["benchmark", *names], rows) if rows else None


def _with_error(value: float | None, error: float | None) -> str:
    return number(value, 4) + (f" ± {error:.4f}" if error is not None else "")


def leaderboard_table(results: Results) -> Grid | None:
    """The rows of the user's leaderboards."""
    rows = [
        [
            row.name,
            f"{row.win_rate:.2f}",
            number(row.standard_error, 2),
            number(row.n_total, 0),
            number(row.avg_length, 0),
        ]
        for row in results.leaderboards
    ]
    return Grid(["model", "win rate", "s.e.", "prompts", "length"], rows) if rows else None
