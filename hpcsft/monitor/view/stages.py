"""The stages of a run as a table, and what there is to say about them. Pure."""

from __future__ import annotations

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.state.stage import StageState
from hpcsft.monitor.view.words import STYLE, amount, phrases

WIDE = 150
"""From so many columns on, remarks stand behind the stage, not below the table."""
WITH_JOBS = 80
"""From so many columns on, job ids are shown."""


def stages_table(state: RunState, width: int, chosen: int | None = None) -> Table:
    """One line for each stage; `chosen` is the place of the cursor, if there is one."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    names = [_marked(stage.name, place, chosen) for place, stage in enumerate(state.stages)]
    whole = {_marked("stage", -1, chosen): names, "state": [stage.state for stage in state.stages]}
    if width >= WITH_JOBS:
        whole["job"] = [" ".join(stage.job_ids) for stage in state.stages]
    for column, texts in whole.items():  # these are never cut; the remark at the end of the line gives way
        least = max(len(text) for text in (column, *texts))
        table.add_column(column, header_style="dim", no_wrap=True, min_width=min(least, width // 3))
    table.add_column("progress", header_style="dim", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    for place, stage in enumerate(state.stages):
        cells: list[RenderableType] = [
            Text(names[place], style="bold" if place == chosen else ""),
            Text(stage.state, style=STYLE[stage.state]),
        ]
        if width >= WITH_JOBS:
            cells.append(Text(" ".join(stage.job_ids), style="dim"))
        table.add_row(*cells, bar(stage, 20 if width >= WITH_JOBS else 10), Text(_remark(stage, state.now, width)))
    return table


def remarks(state: RunState, width: int) -> Table | None:
    """What does not fit into a narrow table; None if there is nothing to say."""
    rows = [(stage.name, said) for stage in state.stages if (said := phrases(stage, state.now))]
    if width >= WIDE or not rows:
        return None
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, said in rows:
        table.add_row(name, Text(" · ".join(said)))
    return table


def bar(stage: StageState, width: int) -> RenderableType:
    """How far a stage is, as a bar; empty if it has not said."""
    if stage.state == "done":
        return ProgressBar(1, 1, width=width)
    if not stage.progress:
        return Text("")
    return ProgressBar(max(1, stage.progress.total), stage.progress.done, width=width)


def _marked(name: str, place: int, chosen: int | None) -> str:
    return name if chosen is None else f"▸ {name}" if place == chosen else f"  {name}"


def _remark(stage: StageState, now: float, width: int) -> str:
    parts = [amount(stage.progress)] if stage.progress else []
    return " · ".join(parts + (phrases(stage, now) if width >= WIDE else []))
