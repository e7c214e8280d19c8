"""State -> what is shown: rich renderables for a terminal, plain lines for a pipe. Pure."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpcsft.monitor.state import RunState, StageState

STYLE = {
    "done": "green",
    "running": "cyan",
    "pending": "yellow",
    "failed": "bold red",
    "waiting": "bold yellow",
    "cancelled": "magenta",
    "unsubmitted": "dim",
}
SPARKS = "▁▂▃▄▅▆▇█"


def render(state: RunState, width: int) -> RenderableType:
    """The whole screen for one run at `width` columns."""
    parts: list[RenderableType] = [_title(state), _stages(state, width)]
    if state.train:
        parts.append(Padding(_train(state, width), (1, 0, 0, 0)))
    for stage in state.stages:
        if stage.state in ("failed", "waiting"):
            parts.append(Padding(_failure(stage), (1, 0, 0, 0)))
    if state.problem:
        parts.append(Text(f"Slurm: {state.problem}; what is shown comes from the run directory", style="yellow"))
    return Group(*parts)


def _title(state: RunState) -> Text:
    name = state.run_dir.rsplit("/", 1)[-1]
    return Text.assemble((name, "bold"), "  ", (run_state_text(state), STYLE[state.state]))


def run_state_text(state: RunState) -> str:
    """The state of a run in words."""
    waiting = [stage.name for stage in state.stages if stage.state == "waiting"]
    if state.state != "waiting":
        return state.state
    return "waiting for a judge" if waiting == ["judge"] else f"waiting: {', '.join(waiting)}"


def _stages(state: RunState, width: int) -> Table:
    wide = width >= 80
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    whole = {"stage": [s.name for s in state.stages], "state": [s.state for s in state.stages]}
    if wide:
        whole["job"] = [" ".join(s.job_ids) for s in state.stages]
    for column, texts in whole.items():  # these are never cut; the remark at the end of the line gives way
        least = max(len(text) for text in (column, *texts))
        table.add_column(column, header_style="dim", no_wrap=True, min_width=min(least, width // 3))
    table.add_column("progress", header_style="dim", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    for stage in state.stages:
        cells: list[RenderableType] = [stage.name, Text(stage.state, style=STYLE[stage.state])]
        if wide:
            cells.append(Text(" ".join(stage.job_ids), style="dim"))
        cells += [_bar(stage, 24 if wide else 10), Text(_remark(stage), style="dim")]
        table.add_row(*cells)
    return table


def _bar(stage: StageState, width: int) -> RenderableType:
    if stage.state == "done":
        return ProgressBar(1, 1, width=width)
    if not stage.progress:
        return Text("")
    return ProgressBar(max(1, stage.progress.total), stage.progress.done, width=width)


def _remark(stage: StageState) -> str:
    parts = []
    if stage.progress:
        parts.append(f"{stage.progress.done}/{stage.progress.total} {stage.progress.unit}")
    if stage.elapsed and stage.limit and stage.state == "running":
        parts.append(f"{stage.elapsed} of {stage.limit}")
    if stage.restarts:
        parts.append(f"{stage.restarts} restart{'s' if stage.restarts > 1 else ''}")
    if stage.message and stage.state == "pending":
        parts.append(stage.message)
    return " · ".join(parts)


def _train(state: RunState, width: int) -> Table:
    train = state.train
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    if "loss" in train:
        room = max(8, min(60, width - 24))
        loss = "not finite" if train["loss"] is None else f"{train['loss']:.4f}"
        table.add_row("loss", f"{loss}  {sparkline(train['losses'][-room:])}")
        norm = f"{train['grad_norm']:.3f}" if train.get("grad_norm") is not None else "?"
        speed = f"{train['tokens_per_s']:,.0f} tokens/s · lr {train['lr']:.2e} · gradient norm {norm}"
        table.add_row("epoch", f"{train['epoch']:.2f}")
        table.add_row("speed", speed)
        if train.get("memory_gb") is not None:
            mfu = f"MFU {train['mfu']:.0%} · " if train.get("mfu") is not None else ""
            table.add_row("use", f"{mfu}at most {train['memory_gb']:.1f} GB on a rank")
    if train.get("validation"):
        losses = "  ".join(f"{row['checkpoint']} {row['loss']:.4f}" for row in train["validation"])
        table.add_row("validation", losses)
    if train.get("checkpoint"):
        table.add_row("checkpoint", train["checkpoint"])
    return table


def _failure(stage: StageState) -> Group:
    what = "failed" if stage.state == "failed" else "waits"
    lines = [Text.assemble((f"{stage.name} {what}: ", STYLE[stage.state]), stage.message or "")]
    if stage.hint:
        lines.append(Text(f"hint: {stage.hint}"))
    if stage.log:
        lines.append(Text(f"log: {stage.log}", style="dim"))
    return Group(*lines)


def sparkline(values: list[float]) -> str:
    """The course of `values` as one line of blocks, from the lowest to the highest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0
    return "".join(SPARKS[round((value - low) * scale)] for value in values)


def plain_line(stage: StageState) -> str:
    """One stage in one line, for a pipe."""
    remark = _remark(stage)
    line = f"{stage.name}: {stage.state}" + (f" ({remark})" if remark else "")
    if stage.state in ("failed", "waiting"):
        line += f": {stage.message or 'see the log'}" + (f" [{stage.log}]" if stage.log else "")
    if stage.state == "waiting" and stage.hint:
        line += f"; {stage.hint}"
    return line


def changed_lines(before: RunState | None, after: RunState) -> list[str]:
    """Lines for what has changed since `before`; all stages the first time. Progress counts in tenths."""
    earlier = {stage.name: _shown_in_line(stage) for stage in before.stages} if before else {}
    lines = [plain_line(stage) for stage in after.stages if earlier.get(stage.name) != _shown_in_line(stage)]
    if before is None or before.state != after.state:
        lines.append(f"run: {run_state_text(after)}")
    if after.problem and (before is None or before.problem != after.problem):
        lines.append(f"slurm: {after.problem}")
    return lines


def _shown_in_line(stage: StageState) -> tuple[object, ...]:
    tenth = 10 * stage.progress.done // max(1, stage.progress.total) if stage.progress else None
    return stage.state, stage.message, stage.restarts, tenth
