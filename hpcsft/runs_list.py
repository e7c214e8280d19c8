"""The runs there are: state, progress and disk use of each, and the sum."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from hpcsft.disk_use import DiskMeter, DiskUse, size_text
from hpcsft.errors import HpcsftError
from hpcsft.monitor.look import Look
from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.view.words import STYLE
from hpcsft.records import Progress, Record
from hpcsft.rundir import RunDir
from hpcsft.runs_dirs import submitted_s

MAX_AGE_S = 15.0
"""An answer of Slurm that is no older is new enough for a list."""
GAP = 2
SIZES = ("checkpoints", "models", "data", "rest", "disk")
ALWAYS = ("run", "state", "disk")
WHERE_THERE_IS_ROOM = (("submitted",), ("progress",), SIZES[:-1])
"""Further columns, the most useful first; from the first that does not fit on none is shown."""
UNREADABLE = "unreadable"
"""The state of a run that this version cannot read."""


class RunRow(Record):
    """One run."""

    name: str
    run_dir: str
    state: str
    submitted: str | None
    """Local time, ISO 8601."""
    stage: str | None = None
    """The stage that is under way, or at which the run stands."""
    progress: Progress | None = None
    epoch: float | None = None
    """Epochs of training that are done."""
    disk: DiskUse | None = None


class RunList(Record):
    """All runs; its dump is the document of `runs --json`."""

    schema_version: int = 1
    runs: list[RunRow]
    total_bytes: int | None = None
    """Files that runs share count once."""
    shared_bytes: int | None = None
    """Of that: files that are linked more than once."""
    problem: str | None = None
    """Why the states are those of the run directories alone."""


def list_runs(runs: Sequence[RunDir], disk: bool) -> RunList:
    """Look at all runs, with at most one squeue; with `disk` every file of theirs is looked at."""
    states, problem = _states(runs)
    meter = DiskMeter()
    rows = [run_row(run, state, meter.measure(run) if disk else None) for run, state in zip(runs, states, strict=True)]
    sums = {"total_bytes": meter.total_bytes, "shared_bytes": meter.shared_bytes} if disk else {}
    return RunList(runs=rows, problem=problem, **sums)


def run_row(run: RunDir, state: RunState | None, disk: DiskUse | None) -> RunRow:
    """One run as the list shows it; `state` is None if it cannot be read."""
    when_s = submitted_s(run)
    submitted = datetime.fromtimestamp(when_s).isoformat(timespec="seconds") if when_s else None
    facts = {"name": run.path.name, "run_dir": str(run.path), "submitted": submitted, "disk": disk}
    if state is None:
        return RunRow(state=UNREADABLE, **facts)
    stage = next((stage for stage in state.stages if stage.state not in ("done", "unsubmitted")), None)
    return RunRow(
        state=state.state,
        stage=stage.name if stage else None,
        progress=stage.progress if stage else None,
        epoch=state.train.get("epoch"),
        **facts,
    )


def sort_rows(rows: Sequence[RunRow], by: str) -> list[RunRow]:
    """By name, or by time or disk use with the newest or largest first."""
    if by == "name":
        return sorted(rows, key=lambda row: row.name)
    if by == "disk":
        return sorted(rows, key=lambda row: row.disk.total_bytes if row.disk else 0, reverse=True)
    return sorted(rows, key=lambda row: row.submitted or "", reverse=True)


def runs_table(found: RunList, width: int) -> Table:
    """One line for each run, at `width` columns: narrow screens show fewer columns, then less of the names."""
    columns = _columns(found)
    widths = {name: max(len(text) for text in (name, *cells)) for name, cells in columns.items()}
    shown = [name for name in ALWAYS if name in columns]
    room = width - sum(widths[name] + GAP for name in shown) + GAP
    for group in WHERE_THERE_IS_ROOM:
        needs = sum(widths.get(name, width) + GAP for name in group)
        if needs > room:
            break
        shown += group
        room -= needs
    widths["run"] = max(len("run"), widths["run"] + min(0, room))  # it gives way to what is always there
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for name in columns:
        if name in shown:
            side = "right" if name in SIZES else "left"
            table.add_column(name, header_style="dim", no_wrap=True, width=widths[name], justify=side)
    for number, row in enumerate(found.runs):
        styles = {"state": STYLE.get(row.state, "bold red"), **dict.fromkeys(SIZES[:-1], "dim")}
        table.add_row(*(Text(columns[name][number], styles.get(name, "")) for name in columns if name in shown))
    return table


def _columns(found: RunList) -> dict[str, list[str]]:
    """All columns from left to right, with their cells."""
    columns = {
        "run": [row.name for row in found.runs],
        "state": [row.state for row in found.runs],
        "submitted": [(row.submitted or "")[:16].replace("T", " ") for row in found.runs],
        "progress": [progress_text(row) for row in found.runs],
    }
    if found.total_bytes is not None:
        uses = [row.disk or DiskUse() for row in found.runs]
        columns |= {name: [size_text(getattr(use, f"{name}_bytes")) for use in uses] for name in SIZES[:-1]}
        columns["disk"] = [size_text(use.total_bytes) for use in uses]
    return columns


def sum_lines(found: RunList) -> list[str]:
    """What stands below the table."""
    count = f"{len(found.runs)} run{'s' if len(found.runs) != 1 else ''}"
    lines = [count]
    if found.total_bytes is not None:
        lines = [f"{count}, {size_text(found.total_bytes)}"]
    if found.shared_bytes:
        lines.append(f"{size_text(found.shared_bytes)} of it are linked from .cache or another run, and counted once")
    if found.problem:
        lines.append(f"Slurm: {found.problem}; the states come from the run directories alone")
    return lines


def progress_text(row: RunRow) -> str:
    """How far a run is: `train 30%, epoch 0.90`."""
    if row.stage is None or row.state == "done":
        return f"epoch {row.epoch:.2f}" if row.epoch is not None else ""
    share = f" {100 * row.progress.done // max(1, row.progress.total)}%" if row.progress else ""
    epoch = f", epoch {row.epoch:.2f}" if row.stage == "train" and row.epoch is not None else ""
    return f"{row.stage}{share}{epoch}"


def _states(runs: Sequence[RunDir]) -> tuple[list[RunState | None], str | None]:
    """The state of each run, None where it cannot be read; and why Slurm was not heard."""
    look = Look(runs)
    try:
        look.states(())  # tells which jobs have not been told about
        look.ask(MAX_AGE_S)
        return [None if state.lost else state for state in look.states(())], look.snapshot.problem
    except HpcsftError:  # there is one run alone
        return [None], None
