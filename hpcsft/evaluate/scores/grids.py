"""Scores as tables of text, for Markdown and for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hpcsft.evaluate.scores.intervals import Interval
from hpcsft.evaluate.scores.paired import Difference
from hpcsft.evaluate.scores.summary import Scores

NONE = "-"


class Grid(NamedTuple):
    """A table whose first column names the rows; all other cells are numbers."""

    header: list[str]
    rows: list[list[str]]


Named = Sequence[tuple[str, Scores]]
"""Models with the names that they are shown by."""


def win_rates(models: Named, with_error: bool = False) -> Grid:
    """What AlpacaEval shows, and an interval; the standard error only if it is asked for."""
    lc = any(scores.lc_win_rate is not None for _, scores in models)
    error = ["s.e."] if with_error else []
    controlled = ["LC"] if lc else []
    header = ["model", "win rate", *error, "95% interval", "win/draw/loss", "length-only", *controlled, "length"]
    rows = [
        [
            name,
            number(scores.win_rate, 2),
            *([number(scores.standard_error, 2)] if with_error else []),
            interval_text(scores.interval),
            f"{scores.n_wins}/{scores.n_draws}/{scores.n_wins_base}",
            number(scores.length_only_win_rate, 1),
            *([number(scores.lc_win_rate, 2)] if lc else []),
            number(scores.avg_length, 0),
        ]
        for name, scores in models
    ]
    return Grid(header, rows)


def positions(models: Named) -> Grid:
    """What the order of the answers did."""
    rows = []
    for name, scores in models:
        bias = scores.position_bias
        shares = (bias.first, bias.second, bias.chosen_first, bias.consistency)
        rows.append([name, *(number(share, 1) for share in shares), str(scores.n_unparsed)])
    return Grid(["model", "shown 1st", "shown 2nd", "1st chosen", "same winner", "no verdict"], rows)


def datasets(models: Named) -> Grid | None:
    """Win rates by data set of the prompts; None where no file names more than one."""
    rows = [
        [
            f"{name} {dataset or '(none)'}",
            number(found.win_rate, 2),
            interval_text(found.interval),
            str(found.n_total),
        ]
        for name, scores in models
        for dataset, found in scores.datasets.items()
    ]
    return Grid(["data set", "win rate", "95% interval", "prompts"], rows) if rows else None


def differences(found: Sequence[Difference]) -> Grid | None:
    """Paired differences in points of the win rate; None where nothing is compared."""
    rows = [
        [
            f"{d.before} to {d.after}",
            f"{d.difference:+.2f}",
            interval_text(d.interval),
            f"{d.p_value:.4f}",
            f"{d.p_holm:.4f}",
            number(d.detectable, 1),
        ]
        for d in found
    ]
    return Grid(["difference", "points", "95% interval", "p", "p (Holm)", "detectable"], rows) if rows else None


def joined(*grids: Grid) -> Grid:
    """One table of several with the same rows."""
    header = [*grids[0].header, *(column for grid in grids[1:] for column in grid.header[1:])]
    rows = [
        [*same[0], *(cell for row in same[1:] for cell in row[1:])]
        for same in zip(*(grid.rows for grid in grids), strict=True)
    ]
    return Grid(header, rows)


def number(value: float | None, digits: int) -> str:
    """A number, or a dash for none."""
    return NONE if value is None else f"{value:.{digits}f}"


def interval_text(interval: Interval | None) -> str:
    """[low, high] in percent."""
    return NONE if interval is None else f"[{interval[0]:.1f}, {interval[1]:.1f}]"
