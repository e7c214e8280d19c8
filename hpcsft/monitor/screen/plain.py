"""In a pipe: a line for each change, and a sign of life; or the same as JSON lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import IO

from hpcsft.errors import ClusterError
from hpcsft.monitor.look import Look
from hpcsft.monitor.screen.cadence import PIPE_S, SHORTEST_S, Cadence, pause_of_files_s
from hpcsft.monitor.screen.ends import Ends
from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.view.events import Event, events, signs_of_life, usage_events
from hpcsft.monitor.view.words import clock

MOST_DETAILED = 20
"""Of more runs only the states are told, and what their tasks say themselves."""
SIGN_S = 600.0
"""After so much silence a line tells that all goes on."""


def watch_plain(look: Look, as_json: bool, out: IO[str]) -> list[RunState]:
    """Print what changes to `out` until all runs have ended; returns their last states.

    Raises ClusterError when Slurm does not answer the first question.
    """
    cadence, ends = Cadence(PIPE_S), Ends()
    before: list[RunState | None] = [None] * len(look.runs)
    look.states(())
    look.ask(SHORTEST_S)
    if look.snapshot.problem:
        raise ClusterError(look.snapshot.problem, "try again when Slurm answers")
    asked, told_s = look.snapshot.asked, time.monotonic()
    while True:
        began_s = time.monotonic()
        states = look.states(None if len(look.runs) <= MOST_DETAILED else ())
        if look.news:
            cadence.want(time.time())
        found = [event for old, new in zip(before, states, strict=True) for event in events(old, new)]
        found = [event for event in found if event.event != "slurm"] + _once([e for e in found if e.event == "slurm"])
        if not found and time.monotonic() - told_s > SIGN_S:
            found = [event for state in states if not state.finished for event in signs_of_life(state)]
        if found:
            told_s = time.monotonic()
            _print(found, as_json, len(states) > 1, out)
        for run, old, new in zip(look.runs, before, states, strict=True):
            ends.see(run, old, new)
        over = all(state.finished for state in states)
        if over:
            _print([event for state in states for event in usage_events(state)], as_json, len(states) > 1, out)
        for line in ends.tell_all() if over else ends.tell():
            print(line, file=sys.stderr, flush=True)
        if over:
            return states
        before = list(states)
        time.sleep(pause_of_files_s(time.monotonic() - began_s))
        if look.queue and cadence.due(asked, time.time()):
            cadence.answered(look.ask(cadence.max_age_s(asked, time.time())))
            asked = look.snapshot.asked


def _once(found: Sequence[Event]) -> list[Event]:
    """Of what all runs have in common, one."""
    return list(found[:1])


def _print(found: Sequence[Event], as_json: bool, many: bool, out: IO[str]) -> None:
    encoding = out.encoding or "utf-8"
    for event in found:
        run = f"{event.run_dir.rsplit('/', 1)[-1]} " if many else ""
        texts = [f"{clock(event.time)} {run}{text}" for text in event.text.splitlines()]
        for line in [event.model_dump_json(exclude_none=True)] if as_json else texts:
            print(line.encode(encoding, errors="replace").decode(encoding), file=out, flush=True)
