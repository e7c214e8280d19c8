"""Many runs as a table. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.view.fit import Fit, Part
from hpcsft.monitor.view.keys_help import HELP, footer
from hpcsft.monitor.view.navigation import Place, chosen_stage
from hpcsft.monitor.view.outcome import silence
from hpcsft.monitor.view.words import STYLE, clock, phrases, run_state_text


def runs_page(states: Sequence[RunState], place: Place, width: int, height: int) -> RenderableType:
    """All runs, the one with the cursor marked, as many as fit."""
    quiet = next((line for state in states if (line := silence(state))), None)
    room = max(1, height - 4 - (2 if quiet else 0))
    first = max(0, min(place.run - room // 2, len(states) - room))
    table = runs_table(states[first : first + room], width, place.run - first)
    parts = [Part(_head(states, first, room), 0), Part(Text(""), 3), Part(HELP if place.help else table, 1)]
    if quiet:
        parts.append(Part(quiet, 2))
    finished = all(state.finished for state in states)
    return Fit([*parts, Part(footer(place, finished, width), 0, bottom=True)], height)


def runs_table(states: Sequence[RunState], width: int, chosen: int | None = None) -> Table:
    """One line for each run."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    rows = [_row(state, "▸ " if number == chosen else "  ") for number, state in enumerate(states)]
    for place, column in enumerate(("  run", "state", "stage")):  # never cut, but for long names
        longest = max([len(column), *(len(row[place]) for row in rows)])
        exact = min(longest, max(width // 3, width - 60)) if place == 0 else longest
        table.add_column(column, header_style="dim", no_wrap=True, overflow="ellipsis", width=exact)
    table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    for number, (state, (name, *cells)) in enumerate(zip(states, rows, strict=True)):
        word, *rest = (Text(cell) for cell in cells)
        word.stylize("bold red" if state.lost else STYLE[state.state])
        table.add_row(Text(name, style="bold" if number == chosen else ""), word, *rest)
    return table


def _row(state: RunState, mark: str) -> list[str]:
    """Name, state, the stage that matters most and how far it is, and what there is to say."""
    if state.lost:
        return [mark + state.name, run_state_text(state).partition(":")[0], "", state.lost]
    stage = state.stages[chosen_stage(state, Place("runs"))]
    if stage.state in ("failed", "waiting"):
        said = [stage.message or "see the log"]
    else:
        loss = state.train.get("loss") if stage.name == "train" else None
        said = [*([f"loss {loss:.4f}"] if loss is not None else []), *phrases(stage, state.now)]
    share = f" {100 * stage.progress.done // max(1, stage.progress.total)}%" if stage.progress else ""
    where = "" if state.state == "done" else f"{stage.name}{share}"
    return [mark + state.name, state.state, where, " · ".join(said)]


def _head(states: Sequence[RunState], first: int, room: int) -> Text:
    counts = Counter(run_state_text(state) if state.lost else state.state for state in states)
    head = Text.assemble((f"{len(states)} runs", "bold"))
    for state in sorted(counts, key=lambda word: [*STYLE, word].index(word)):
        head.append("  ")
        head.append(f"{counts[state]} {state}", style=STYLE.get(state, "bold red"))
    if len(states) > room:
        head.append(f"  {first + 1} to {min(first + room, len(states))} shown", style="dim")
    asked = max((state.as_of for state in states if state.as_of), default=None)
    if asked and not any(state.problem for state in states):
        head.append(f"  Slurm as of {clock(asked)}", style="dim")
    return head
