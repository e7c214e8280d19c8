"""Scores for a terminal, from 80 columns on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hpcsft.evaluate.scores import grids, sentences
from hpcsft.evaluate.scores.grids import Grid
from hpcsft.evaluate.scores.paired import Difference, Group
from hpcsft.evaluate.scores.summary import Scores

NAME_WIDTH = 12
"""Longer names are folded where the terminal is narrow."""


def print_scores(
    models: Sequence[Scores], differences: Sequence[Difference], apart: Sequence[Group], console: Console
) -> None:
    """Print what `score`, `compare` and `not_compared` gave."""
    names = short_names([scores.name for scores in models])
    named = [(names[scores.name], scores) for scores in models]
    differences = [
        found.model_copy(update={"before": names[found.before], "after": names[found.after]}) for found in differences
    ]
    print_side_by_side([grids.win_rates(named, with_error=True), grids.positions(named)], console)
    if datasets := grids.datasets(named):
        print_tables([datasets], console)
    print_differences(differences, console)
    for line in [*_notes(named, differences), *_apart(apart, names)]:
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


def print_differences(differences: Sequence[Difference], console: Console) -> None:
    """Their table, whole: models whose names are too long for it are numbered above it."""
    grid = grids.differences(differences)
    if grid is None:
        return
    if not _fits(grid, console):
        names = dict.fromkeys(name for found in differences for name in (found.before, found.after))
        numbers = {name: str(number) for number, name in enumerate(names, 1)}
        for name, number in numbers.items():
            print_line(f"{number} = {name}", console)
        console.print()
        renamed = [
            found.model_copy(update={"before": numbers[found.before], "after": numbers[found.after]})
            for found in differences
        ]
        grid = grids.differences(renamed) or grid
    print_tables([grid], console)


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


def _fits(grid: Grid, console: Console) -> bool:
    return _width(table_of(grid, gap=1), console) <= console.width


def _width(table: Table, console: Console) -> int:
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def print_line(text: str, console: Console) -> None:
    """A sentence, wrapped at words."""
    console.print(Text(text), highlight=False)


def _notes(models: Sequence[tuple[str, Scores]], differences: Sequence[Difference]) -> Iterator[str]:
    conditions = {sentences.condition(scores.judge, scores.reference): None for _, scores in models}
    yield f"Rates in percent; {'; '.join(conditions)}."
    notes: dict[str, list[str]] = {}
    for name, scores in models:
        for note in _notes_of(scores):
            notes.setdefault(note, []).append(name)
    for note, names in notes.items():
        yield note if len(names) == len(models) else f"{', '.join(names)}: {note}"
    if differences:
        yield sentences.noise_sentence(differences)
    elif models[0][1].n_total:
        yield sentences.prompts_sentence(models[0][1].n_total)


def _notes_of(scores: Scores) -> Iterator[str]:
    if scores.win_rate is not None and abs(scores.win_rate - scores.discrete_win_rate) > 0.005:
        yield f"Win rate counting each win as one: {grids.number(scores.discrete_win_rate, 2)}."
    if scores.reference is None:
        yield "No row names the reference; --reference NAME does, also where `generator` is its name."
    if draw := sentences.draw_sentence(scores.position_bias):
        yield draw
    if scores.length_only_undefined:
        yield f"No length-only rate: {scores.length_only_undefined}."
    if scores.lc_undefined:
        yield f"No length-controlled rate: {scores.lc_undefined}."


def _apart(groups: Sequence[Group], names: Mapping[str, str]) -> Iterator[str]:
    if groups:
        told = (
            f"{', '.join(names[name] for name in group.models)} ({sentences.condition(group.judge, group.reference)})"
            for group in groups
        )
        yield f"Not compared with each other, for their judge or reference differs: {'; '.join(told)}."
