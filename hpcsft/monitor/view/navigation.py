"""Where one is on the live screen, and what a key makes of that. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.state.stage import StageState

Action = Literal["quit", "cancel", "ask"]
"""What a key may ask for: to leave, to cancel the run that is open, to ask Slurm now."""

PAGE_LINES = 10
"""So far a key scrolls a log."""


@dataclass(frozen=True)
class Place:
    """What is on the screen."""

    page: Literal["runs", "run", "stage"]
    run: int = 0
    alone: bool = False
    """Is there one run only, and no table of runs?"""
    stage: int | None = None
    """None: the one that matters most now."""
    task: int | None = None
    """None: the task that matters most."""
    rank: int | None = None
    """None: the rank that failed first, else rank 0."""
    stream: Literal["out", "err"] | None = None
    """None: errors of what failed, else what was printed."""
    back: int = 0
    """So many lines the log is scrolled back."""
    help: bool = False
    asks: bool = False
    """Is it asked whether the run is to be cancelled?"""


def chosen_stage(state: RunState, place: Place) -> int:
    """The stage with the cursor: the one that was chosen, else what failed or waits, runs, or comes next."""
    if place.stage is not None:
        return min(place.stage, len(state.stages) - 1)
    for wanted in (("failed", "waiting"), ("running",), ("pending", "cancelled")):
        for number, stage in enumerate(state.stages):
            if stage.state in wanted:
                return number
    return max(0, len([stage for stage in state.stages if stage.state != "unsubmitted"]) - 1)


def chosen_task(stage: StageState, place: Place) -> int:
    """The task whose log is shown: the one that was chosen, else the first that failed or waits, or that runs."""
    if place.task is not None:
        return min(place.task, max(0, len(stage.tasks) - 1))
    for wanted in (("failed", "waiting"), ("running",)):
        for task in stage.tasks:
            if task.state in wanted:
                return task.index
    return 0


def chosen_stream(stage: StageState, place: Place) -> Literal["out", "err"]:
    """Which of a rank's two logs is shown."""
    return place.stream or ("err" if stage.state in ("failed", "waiting") else "out")


def chosen_rank(stage: StageState, place: Place) -> int:
    """Whose log is shown."""
    failed = stage.failure.rank if stage.failure else None
    return place.rank if place.rank is not None else failed or 0


def press(place: Place, key: str, states: Sequence[RunState], ranks: Sequence[int]) -> tuple[Place, Action | None]:
    """The next place, and what is to be done; `ranks` have a log in the folder on the screen."""
    if place.asks:
        return replace(place, asks=False), "cancel" if key in ("y", "Y") else None
    if place.help:
        return replace(place, help=False), "quit" if key in ("q", "ctrl-c") else None
    if key in ("q", "ctrl-c"):
        return place, "quit"
    if key in ("?", "h"):
        return replace(place, help=True), None
    if key == "u":
        return place, "ask"
    if place.page == "runs":
        readable = bool(states) and bool(states[place.run].stages)
        return (place if key in ("enter", "right") and not readable else _in_runs(place, key, len(states))), None
    state = states[place.run]
    if key == "c" and not state.finished:
        return replace(place, asks=True), None
    if key in ("esc", "left", "backspace"):
        return _back(place), None
    if key in ("page up", "page down"):
        step = PAGE_LINES if key == "page up" else -PAGE_LINES
        return replace(place, back=max(0, place.back + step)), None
    if key == "e":
        stream = chosen_stream(state.stages[chosen_stage(state, place)], place)
        return replace(place, stream="out" if stream == "err" else "err", back=0), None
    if key in ("r", "R") and ranks:
        rank = chosen_rank(state.stages[chosen_stage(state, place)], place)
        return replace(place, rank=_neighbour(ranks, rank, 1 if key == "r" else -1), back=0), None
    return _in_run(place, key, state), None


def _in_runs(place: Place, key: str, num_runs: int) -> Place:
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -PAGE_LINES, "page down": PAGE_LINES}
    steps |= {"home": -num_runs, "end": num_runs}
    if key in steps:
        return replace(place, run=min(max(0, place.run + steps[key]), max(0, num_runs - 1)))
    return Place("run", run=place.run) if key in ("enter", "right") and num_runs else place


def _in_run(place: Place, key: str, state: RunState) -> Place:
    stage = chosen_stage(state, place)
    steps = {"up": -1, "k": -1, "down": 1, "j": 1}
    if key in ("enter", "right"):
        return replace(place, page="stage", stage=stage)
    if key not in steps:
        return place
    if place.page == "stage":
        last, now = max(0, len(state.stages[stage].tasks) - 1), chosen_task(state.stages[stage], place)
        return replace(place, task=min(max(0, now + steps[key]), last), rank=None, back=0)
    return replace(
        place, stage=min(max(0, stage + steps[key]), len(state.stages) - 1), task=None, rank=None, stream=None, back=0
    )


def _back(place: Place) -> Place:
    if place.page == "stage":
        return replace(place, page="run", back=0)
    return place if place.alone else Place("runs", run=place.run)


def _neighbour(ranks: Sequence[int], rank: int, step: int) -> int:
    if rank not in ranks:
        return ranks[0]
    return ranks[(list(ranks).index(rank) + step) % len(ranks)]
