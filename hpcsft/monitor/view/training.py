"""How training and evaluation do. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpcsft.monitor.state.history import restarts_text
from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.view.sparkline import Sparkline
from hpcsft.usage.text import duration

NUM_LOSSES = 6
"""So many validation losses fit into a line."""


def training(state: RunState, width: int) -> RenderableType | None:
    """The last step, validation losses, the newest checkpoint, restarts; None before anything is known."""
    train = state.train
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    if "loss" in train:
        loss = "not finite" if train["loss"] is None else f"{train['loss']:.4f}"
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(loss, Sparkline(train.get("losses", []), max(8, min(120, width - 24))))
        table.add_row("loss", line)
        table.add_row("step", " · ".join(_step(state)))
        if speed := _speed(state):
            table.add_row("speed", " · ".join(speed))
    if train.get("validation"):
        table.add_row("validation", Text(_validation(train["validation"])))
    if train.get("checkpoint"):
        saved = train.get("checkpoint_time")
        age = f", {duration(state.now - saved)} old" if saved and not state.finished else ""
        table.add_row("checkpoint", Text(train["checkpoint"] + age))
    stage = next((stage for stage in state.stages if stage.name == "train"), None)
    if stage and (told := restarts_text(stage.attempts)):
        table.add_row("attempts", Text(told))
    for trouble in state.ranks:
        who = "ranks" if trouble.rank is None else f"rank {trouble.rank}"
        where = f"on {trouble.host}: " if trouble.host else ""
        table.add_row(Text(who, style="bold yellow"), Text(where + trouble.text, style="yellow"))
    return table if table.row_count else None


def _validation(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first and the last losses, and the lowest if it is not the last: then the model overfits."""
    told = [f"{row['checkpoint']} {row['loss']:.4f}" for row in rows]
    if len(told) > NUM_LOSSES:
        told = [told[0], "…", *told[2 - NUM_LOSSES :]]
    lowest = min(rows, key=lambda row: row["loss"])
    worse = f"  (lowest: {lowest['checkpoint']} {lowest['loss']:.4f})" if lowest is not rows[-1] else ""
    return "  ".join(told) + worse


def _step(state: RunState) -> list[str]:
    train = state.train
    told = {"epoch": "epoch {:.2f}", "lr": "lr {:.2e}", "grad_norm": "gradient norm {:.3f}"}
    parts = [form.format(train[name]) for name, form in told.items() if train.get(name) is not None]
    return [f"{train['step']:,}", *parts] + (["gradient norm ?"] if train.get("grad_norm") is None else [])


def _speed(state: RunState) -> list[str]:
    train = state.train
    told = {
        "tokens_per_s": "{:,.0f} tokens/s",
        "pace_s": "{:.2g} s from step to step",
        "mfu": "MFU {:.0%}",
        "memory_gb": "at most {:.1f} GB on a rank",
    }
    return [form.format(train[name]) for name, form in told.items() if train.get(name) is not None]


def evaluation(state: RunState) -> RenderableType | None:
    """Answers, verdicts and win rates as they come in; None before the first answer."""
    if not state.standings:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("checkpoint", header_style="dim", no_wrap=True)
    for column in ("answers", "verdicts", "win rate", "95% interval"):
        table.add_column(column, header_style="dim", no_wrap=True, justify="right")
    for row in state.standings:
        interval = f"[{row.interval[0]:.1f}, {row.interval[1]:.1f}]" if row.interval else ""
        cells = [f"{row.answers:,}" if row.answers else "", f"{row.verdicts:,}" if row.verdicts else ""]
        cells += [f"{row.win_rate:.2f}" if row.win_rate is not None else "", interval]
        table.add_row(*map(Text, [row.name, *cells]))
    if any(not row.final and row.verdicts for row in state.standings):
        return Group(table, Text("win rates so far; the report has the final ones", style="dim"))
    return table
