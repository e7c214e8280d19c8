"""report.md. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from hpcsft.evaluate.scores import grids
from hpcsft.evaluate.scores.grids import Grid
from hpcsft.evaluate.scores.published import Setting, comparability, published_tables
from hpcsft.report import sentences, tables
from hpcsft.report.document import Results


def report_markdown(results: Results) -> str:
    """The whole page."""
    return "\n\n".join(part for part in _parts(results) if part) + "\n"


def _parts(results: Results) -> Iterator[str]:
    yield f"# {_text(results.name)}"
    yield _text(sentences.setting_sentence(results))
    yield markdown_table(tables.main_table(results))
    if differences := grids.differences(results.differences):
        yield markdown_table(differences)
    yield _text(sentences.noise_sentence(results))
    if hidden := tables.hidden_tables(results):
        yield "What the win rate hides: the order in which answers were shown, and how many have something wrong."
        yield markdown_table(grids.joined(*hidden))
        yield _text(sentences.LEGEND[0].upper() + sentences.LEGEND[1:])
    yield from map(_text, sentences.generation_lines(results))
    for grid in (grids.datasets(results.scored), tables.benchmark_table(results)):
        if grid:
            yield markdown_table(grid)
    yield _text(sentences.benchmark_sentence(results))
    yield _text(sentences.training_sentence(results))
    yield sentences.data_sentence(results) + "; more in [data.html](data.html)."
    yield _text(sentences.provenance_sentence(results))
    if results.setting:
        yield from _others(results, results.setting)


def _others(results: Results, setting: Setting) -> Iterator[str]:
    yield "## Rows of others"
    if leaderboard := tables.leaderboard_table(results):
        sources = ", ".join(dict.fromkeys(row.source for row in results.leaderboards))
        yield _text(f"From {sources}, where judge, reference and prompts may be others:")
        yield markdown_table(leaderboard)
    for table in published_tables():
        yield _text(f"{table.title} ({table.source}). {comparability(table, setting)} {table.note}")
        rows = [[row.name, f"{row.win_rate:.2f}", grids.number(row.avg_length, 0)] for row in table.rows]
        yield markdown_table(Grid(["model", "win rate", "length"], rows))


def markdown_table(grid: Grid) -> str:
    """Aligned columns: the first to the left, numbers to the right."""
    header, rows = [_cell(cell) for cell in grid.header], [[_cell(cell) for cell in row] for row in grid.rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = [cells[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = "| " + " | ".join(["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]) + " |"
    return "\n".join([line(header), rule, *map(line, rows)])


def _cell(text: str) -> str:
    return " ".join(_text(text).replace("|", r"\|").split()) or " "


def _text(text: str) -> str:
    """Names come from files of others: none of them becomes markup."""
    return "".join("\\" + sign if sign in "*`<" else sign for sign in text).replace("](", "]\\(")
