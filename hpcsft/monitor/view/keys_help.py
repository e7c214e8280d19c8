"""What the keys do, in short and in full. Pure."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from hpcsft.monitor.view.navigation import Place

KEYS = (
    ("up, down, j, k", "move: runs, stages, or the tasks of an array"),
    ("enter, right", "open the run or the stage"),
    ("esc, left", "back"),
    ("r, R", "log of the next rank, of the one before"),
    ("e", "what was printed, or errors"),
    ("page up, page down", "scroll the log"),
    ("u", "ask Slurm now"),
    ("c", "cancel the run; asks first"),
    ("q, ctrl-C", "leave; the jobs go on"),
)


def _help() -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for key, meaning in KEYS:
        table.add_row(key, meaning)
    return table


HELP = _help()


def footer(place: Place, finished: bool, width: int) -> Text:
    """The keys in one line, as many as fit."""
    leave = "q quit" if finished else "q quit, jobs go on"
    open_, back = ("↑↓ move", "enter open"), () if place.page == "run" and place.alone else ("esc back",)
    log = ("r rank", "e errors")
    cancel = () if finished else ("c cancel",)
    parts = {
        "runs": (leave, *open_, "? help"),
        "run": (leave, "? help", *open_, *log, *cancel, *back),
        "stage": (leave, "? help", *back, *log, "pgup scroll", *cancel),
    }[place.page]
    if place.help:
        parts = ("any key goes back",)
    text = ""
    for part in parts:
        longer = f"{text}  ·  {part}" if text else part
        if len(longer) > width:
            break
        text = longer
    return Text(text, style="dim")
