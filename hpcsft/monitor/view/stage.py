"""One stage: its tasks and its attempts. Pure."""

from __future__ import annotations

from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpcsft.monitor.state.history import Attempt
from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.state.stage import StageState
from hpcsft.monitor.view.stages import bar
from hpcsft.monitor.view.words import STYLE, amount, near_time, phrases


def stage_head(stage: StageState, state: RunState, width: int) -> RenderableType:
    """Name, state and jobs; progress; what there is to say about it."""
    first = Text.assemble((stage.name, "bold"), "  ", (stage.state, STYLE[stage.state]))
    if stage.job_ids:
        first.append(f"  job {', '.join(stage.job_ids)}", style="dim")
    if stage.nodes:
        first.append(f"  on {stage.nodes}", style="dim")
    lines: list[RenderableType] = [first]
    if stage.progress:
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(bar(stage, max(10, min(60, width - 30))), Text(amount(stage.progress)))
        lines.append(line)
    if said := phrases(stage, state.now):
        lines.append(Text(" · ".join(said)))
    return Group(*lines)


def tasks_table(stage: StageState, chosen: int, num_rows: int) -> Table:
    """The tasks of an array around the chosen one."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("  task", "state", "host", "progress"):
        table.add_column(column, header_style="dim", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    first = max(0, min(chosen - num_rows // 2, len(stage.tasks) - num_rows))
    for task in stage.tasks[first : first + num_rows]:
        mark = "▸" if task.index == chosen else " "
        table.add_row(
            Text(f"{mark} {task.index}", style="bold" if task.index == chosen else ""),
            Text(task.state, style=STYLE[task.state]),
            Text(task.host),
            Text(amount(task.progress) if task.progress else ""),
            Text(task.message or ""),
        )
    return table


def attempts_table(stage: StageState, num_rows: int, now: float) -> Table:
    """The last attempts: when, where, why they ended, what was kept."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("attempt", "began", "host", "ended"):
        table.add_column(column, header_style="dim", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    for attempt in stage.attempts[-num_rows:]:
        began = datetime.fromisoformat(attempt.started).timestamp()
        cells = [f"{attempt.job_id}_{attempt.restart}", near_time(began, now), attempt.host, attempt.end_text]
        table.add_row(*map(Text, [*cells, _kept(attempt)]))
    return table


def _kept(attempt: Attempt) -> str:
    parts = [f"kept step {attempt.step:,}"] if attempt.step is not None else []
    if attempt.lost_steps:
        parts.append(f"did {attempt.lost_steps} step{'s' if attempt.lost_steps > 1 else ''} again")
    return " · ".join(parts)
