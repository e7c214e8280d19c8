"""A preview as text for a terminal: what is learnt stands out by colour, or by brackets where there is none. Pure.

Everything that comes from the user's data is made harmless and never read as markup.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from hpcsft.data.readable import visible

LEARNT = "bold green"
BRACKETS = ("⟦", "⟧")
"""Around what is learnt, where there are no colours."""

ROW_END = "■"
SHOWN_FILES = 3


def print_preview(document: dict[str, Any], console: Console) -> None:
    """Print what `preview` gave."""
    coloured = console.is_terminal and console.color_system is not None and not console.no_color
    for part in _parts(document, coloured):
        console.print(part, markup=False, highlight=False, emoji=False)


def _parts(document: dict[str, Any], coloured: bool) -> Iterator[RenderableType]:
    for source in document["sources"]:
        yield Text(f"data.{source['source']}", "bold")
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in [*_about(document, source), *_fate(source), *_figures(source)]:
            table.add_row(name, value)
        yield table
        for sample in source["samples"]:
            yield Text()
            yield _title(sample, source["rows"])
            yield _row(sample["runs"], coloured)
        yield Text()
    marks = ("learnt", LEARNT) if coloured else "learnt".join(BRACKETS)
    yield Text.assemble("In rows: ", marks, ", ", ("<special token>", "dim"), f", {ROW_END} is where one ends.")


def _about(document: dict[str, Any], source: dict[str, Any]) -> Iterator[tuple[str, Text]]:
    files = source["files"]
    more = f" and {len(files) - SHOWN_FILES} more" if len(files) > SHOWN_FILES else ""
    yield "files", Text(visible(", ".join(files[:SHOWN_FILES])) + more)
    yield "format", Text(", ".join(f"{name} ({rows:,} rows)" for name, rows in source["formats"].items()) or "unknown")
    yield "template", Text(visible(f"{document['template']}, mask {document['mask']}"))
    yield "max_length", Text(f"{document['max_length']:,} tokens, overlong {document['overlong']}")
    if source["source"] == "train" and document["not_applied"]:
        yield "not applied", Text(f"{' and '.join(document['not_applied'])}, which draw from all rows")


def _fate(source: dict[str, Any]) -> Iterator[tuple[str, Text]]:
    fate = source["fate"]
    parts = " + ".join(f"{fate[name]:,} {name}" for name in ("kept", "dropped", "quarantined"))
    yield "read", Text(f"{fate['read']:,} conversations = {parts}")
    for reason, rows in fate["dropped_because"].items():
        yield "dropped", Text(f"{rows:,}: {reason}", "yellow")
    for group in source["quarantine"]["reasons"]:
        yield "quarantined", Text(f"{group['rows']:,}: {visible(group['reason'])}", "yellow")
    for bad in source["quarantine"]["first"][:1]:
        yield "", Text(visible(f"the first: {bad['file']}, row {bad['row']}: {bad['reason']}"), "yellow")
    if source["too_many_bad_rows"]:
        yield "warning", Text("more than data.max_bad_share allows: preprocessing would stop", "bold red")
    if fate["conversations_overlong"]:
        yield "overlong", Text(f"{fate['conversations_overlong']:,} conversations")
    if fate["rows_truncated"]:
        yield "cut off", Text(f"{fate['rows_truncated']:,} rows, {fate['tokens_truncated']:,} tokens")
    yield "tokens", Text(f"{fate['tokens_read']:,} read, {fate['tokens_in_rows']:,} in rows")


def _figures(source: dict[str, Any]) -> Iterator[tuple[str, Text]]:
    if not source["rows"]:
        yield "warning", Text("not a single training row is left", "bold red")
        return
    lengths, packing = source["lengths"], source["packing"]
    yield "learnt", Text(f"{_percent(source['supervised_share'])} of the tokens in rows", LEARNT)
    spread = f"median {lengths['median']:,}, 95% up to {lengths['p95']:,}, longest {lengths['max']:,} tokens"
    yield "rows", Text(f"{source['rows']:,}: {spread}")
    filled = f"{_percent(packing['filled_share'])} of {packing['positions_per_micro_batch']:,} positions filled"
    padded = f"padded rows would be {_percent(packing['padded_real_share'])} real tokens"
    yield "batches", Text(f"{packing['micro_batches']:,} micro batches of these rows, {filled}, no padding ({padded})")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _title(sample: dict[str, Any], rows: int) -> Rule:
    where = visible(f"{sample['file'].rsplit('/', 1)[-1]}, row {sample['file_row']}")
    return Rule(
        Text(f"row {sample['row']:,} of {rows:,} · {sample['tokens']:,} tokens · {where}"), align="left", style="dim"
    )


def _row(runs: list[dict[str, Any]], coloured: bool) -> Text:
    text = Text(overflow="fold")
    inside = False
    for run in [*runs, {"text": "", "learnt": False, "special": False}]:
        if not coloured and run["learnt"] != inside:
            text.append(BRACKETS[inside])
        inside = run["learnt"]
        style = LEARNT if inside else ""
        text.append(visible(run["text"]), f"{style} dim" if run["special"] else style)
    return text.append(ROW_END, "dim")
