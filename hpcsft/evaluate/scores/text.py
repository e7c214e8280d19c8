"""Scores for a terminal, from 80 columns on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hpcsft.evaluate.scores import grids, sentences
from hpcsft.evaluate.scores.grids import Grid
from hpcsft.evaluate.scores.paired import Difference
from hpcsft.evaluate.scores.summary import Scores

NAME_WIDTH = 12
"""Longer names are folded where the terminal is narrow."""


def print_scores(models: Sequence[Scores], differences: Sequence[Difference], console: Console) -> None:
    """Print what `score` and `compare` gave."""
    names = short_names([scores.name for scores in models])
    named = [(names[scores.name], scores) for scores in models]
    differences = [
        found.model_copy(update={"before": names[found.before], "after": names[found.after]}) for found in differences
    ]
    print_side_by_side([grids.win_rates(named, with_error=True), grids.positions(named)], console)
    print_tables([grid for grid in (grids.datasets(named), grids.differences(differences)) if grid], console)
    for line in _notes(named, differences):
        print_line(line, console)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Without the RUN/ that several names have in common."""
    common = len({name.rpartition("/")[0] for name in names}) == 1 and len(names) > 1
    return {name: name.rpartition("/")[2] if common else name for name in names}


def print_side_by_side(tables: Sequence[Grid], console: Console) -> None:
    """Tables of the same rows: as many in one as the terminal is wide enough for, the others below."""
    merged = [tables[0]]
    for grid in tables[1:]:
        both = grids.joined(merged[-1], grid)
        if _width(table_of(both), console) <= console.width:
            merged[-1] = both
        else:
            merged.append(grid)
    print_tables(merged, console)


def print_tables(tables: Sequence[Grid], console: Console) -> None:
    """One below the other, each with an empty line behind it; what is too wide is printed in parts."""
    for grid in tables:
        fitting = [
            table for table in (table_of(grid), table_of(grid, gap=1)) if _width(table, console) <= console.width
        ]
        if fitting or len(grid.header) <= 2:
            console.print(fitting[0] if fitting else table_of(grid, gap=1))
            console.print()
        else:
            print_tables(_halves(grid), console)


def _halves(grid: Grid) -> list[Grid]:
    """Its columns in two tables, each with the names."""
    middle = (len(grid.header) + 1) // 2
    right = Grid([grid.header[0], *grid.header[middle:]], [[row[0], *row[middle:]] for row in grid.rows])
    return [Grid(grid.header[:middle], [row[:middle] for row in grid.rows]), right]


def table_of(grid: Grid, gap: int = 2) -> Table:
    """Names to the left, numbers to the right; long names are folded, numbers never."""
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    longest = max(len(row[0]) for row in [grid.header, *grid.rows])
    for place, title in enumerate(grid.header):
        if place:
            table.add_column(title, justify="right", no_wrap=True)
        else:
            table.add_column(title, overflow="fold", min_width=min(longest, NAME_WIDTH))
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table


def _width(table: Table, console: Console) -> int:
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def print_line(text: str, console: Console) -> None:
    """A sentence, wrapped at words."""
    console.print(Text(text), highlight=False)


def _notes(models: Sequence[tuple[str, Scores]], differences: Sequence[Difference]) -> Iterator[str]:
    conditions = {f"judge {s.judge or 'unknown'}, reference {s.reference or 'unknown'}": None for _, s in models}
    yield f"Rates in percent; {'; '.join(conditions)}."
    for name, scores in models:
        where = f"{name}: " if len(models) > 1 else ""
        if scores.win_rate is not None and abs(scores.win_rate - scores.discrete_win_rate) > 0.005:
            yield f"{where}Win rate counting each win as one: {grids.number(scores.discrete_win_rate, 2)}."
        if draw := sentences.draw_sentence(scores.position_bias):
            yield f"{where}{draw}"
        if scores.length_only_undefined:
            yield f"{where}No length-only rate: {scores.length_only_undefined}."
        if scores.lc_undefined:
            yield f"{where}No length-controlled rate: {scores.lc_undefined}."
    if differences:
        yield sentences.noise_sentence(differences)
    elif models[0][1].n_total:
        yield sentences.prompts_sentence(models[0][1].n_total)
