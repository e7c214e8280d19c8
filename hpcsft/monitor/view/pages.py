"""The pages of the monitor: all runs, one run, one stage. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.view.fit import Fit, Part
from hpcsft.monitor.view.keys_help import HELP, footer
from hpcsft.monitor.view.navigation import Place, chosen_rank, chosen_stage, chosen_stream, chosen_task
from hpcsft.monitor.view.outcome import silence, trouble, troubles, used
from hpcsft.monitor.view.stage import attempts_table, stage_head, tasks_table
from hpcsft.monitor.view.stages import remarks, stages_table
from hpcsft.monitor.view.training import evaluation, training
from hpcsft.monitor.view.words import STYLE, clock, run_state_text

LOG_LINES = 4
"""So much of a log is always seen."""


@dataclass(frozen=True)
class LogView:
    """The log on the screen."""

    path: str | None
    """Relative to the run directory; None if there is none yet."""
    lines: Sequence[str] = ()
    ranks: Sequence[int] = ()
    """Ranks that have logs in the same folder."""


def summary(state: RunState, width: int) -> RenderableType:
    """A run without its logs: for `--once`, and what stays on the terminal when the live screen is left."""
    return Fit(_run_parts(state, width, None))


def run_page(
    state: RunState, place: Place, log: LogView, width: int, height: int, note: str | None = None
) -> RenderableType:
    """One run: its stages, how training and evaluation do, and the log of the stage with the cursor."""
    number = chosen_stage(state, place)
    parts = [
        *_run_parts(state, width, number),
        *_log_parts(state, place, log, height),
        *_bottom(state, place, width, note),
    ]
    return _page(parts, place, width, height)


def stage_page(
    state: RunState, place: Place, log: LogView, width: int, height: int, note: str | None = None
) -> RenderableType:
    """One stage: its tasks, its attempts, and more of a log."""
    stage = state.stages[chosen_stage(state, place)]
    parts = [Part(_title(state, width), 0), Part(stage_head(stage, state, width), 1)]
    if stage.state in ("failed", "waiting"):
        parts.append(Part(_spaced(trouble(stage)), 2))
    if len(stage.tasks) > 1:
        parts.append(Part(_spaced(tasks_table(stage, chosen_task(stage, place), max(3, height // 4))), 4))
    if stage.attempts:
        parts.append(Part(_spaced(attempts_table(stage, max(3, height // 5), state.now)), 5))
    parts += [*_log_parts(state, place, log, height), *_bottom(state, place, width, note)]
    return _page(parts, place, width, height)


def _page(parts: Sequence[Part], place: Place, width: int, height: int) -> RenderableType:
    if place.help:
        parts = [parts[0], Part(_spaced(HELP), 1), Part(footer(place, False, width), 0, bottom=True)]
    return Fit(parts, height)


def _run_parts(state: RunState, width: int, chosen: int | None) -> list[Part]:
    """What is told of a run; what matters most has the lowest rank."""
    found = [Part(_title(state, width), 0), Part(stages_table(state, width, chosen), 1)]
    blocks: list[tuple[RenderableType | None, int]] = [
        (remarks(state, width), 3),
        *((block, 2) for block in troubles(state)),
        (training(state, width), 4),
        (evaluation(state), 5),
        (used(state, width), 6),
        (silence(state), 1),
    ]
    return found + [Part(_spaced(block), rank) for block, rank in blocks if block is not None]


def _title(state: RunState, width: int) -> RenderableType:
    line = Table.grid(expand=True, padding=(0, 2, 0, 0))
    line.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    name = Text.assemble((state.name, "bold"), "  ", (run_state_text(state), STYLE[state.state]))
    if state.as_of and not state.problem and not state.finished and width >= 60 + len(state.name) // 2:
        line.add_column(no_wrap=True, justify="right", style="dim")
        line.add_row(name, Text(f"Slurm as of {clock(state.as_of)}"))
    else:
        line.add_row(name)
    return line


def _log_parts(state: RunState, place: Place, log: LogView, height: int) -> list[Part]:
    stage = state.stages[chosen_stage(state, place)]
    if log.path is None:
        return [Part(_spaced(Text(f"no log of {stage.name} yet", style="dim")), 8)]
    end = max(0, len(log.lines) - place.back)
    lines = log.lines[max(0, end - height) : end]
    more = f" · rank {chosen_rank(stage, place)} of {len(log.ranks)}" if len(log.ranks) > 1 else ""
    back = f" · {place.back} lines back" if place.back else ""
    name = f"{log.path}{more}{back}"
    body = Text("\n".join(lines) if lines else f"nothing in {chosen_stream(stage, place)} yet", no_wrap=True)
    body.overflow = "ellipsis"
    if not lines:
        body.stylize("dim")
    return [
        Part(_spaced(Rule(Text(name, style="dim"), align="left", style="dim")), 7, least=2),
        Part(body, 8, end=True, least=LOG_LINES),
    ]


def _bottom(state: RunState, place: Place, width: int, note: str | None) -> list[Part]:
    """The keys; or a question; or what has come of a key, until the next one."""
    if place.asks:
        jobs = ", ".join(dict.fromkeys(job for stage in state.stages for job in stage.job_ids))
        question = f"cancel {state.name} (jobs {jobs})? What it has made is kept. y: yes, any other key: no"
        return [Part(Text(question, style="bold yellow"), 0, bottom=True)]
    return [Part(Text(note) if note else footer(place, state.finished, width), 0, bottom=True)]


def _spaced(block: RenderableType) -> RenderableType:
    return Padding(block, (1, 0, 0, 0))
