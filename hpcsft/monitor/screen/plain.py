"""In a pipe: a line for each change, and a sign of life; or the same as JSON lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import IO

from hpcsft.errors import ClusterError
from hpcsft.monitor.look import Look
from hpcsft.monitor.screen.cadence import PIPE_S, SHORTEST_S, Cadence
from hpcsft.monitor.screen.ends import ended, tell_end
from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.view.events import Event, events, signs_of_life
from hpcsft.monitor.view.words import clock

FILES_S = 1.0
SHARE = 0.05
"""As on the live screen."""
MOST_DETAILED = 20
"""Of more runs only the states are told, and what their tasks say themselves."""
SIGN_S = 600.0
"""After so much silence a line tells that all goes on."""


def watch_plain(look: Look, as_json: bool, out: IO[str]) -> list[RunState]:
    """Print what changes to `out` until all runs have ended; returns their last states.

    Raises ClusterError when Slurm does not answer the first question.
    """
    cadence = Cadence(PIPE_S)
    before: list[RunState | None] = [None] * len(look.runs)
    look.states(())
    if problem := look.ask(SHORTEST_S).problem:
        raise ClusterError(problem, "try again when Slurm answers")
    asked_s, pause_s, told_s = time.monotonic(), cadence.next_s(), time.monotonic()
    while True:
        began_s = time.monotonic()
        states = look.states(None if len(look.runs) <= MOST_DETAILED else ())
        found = [event for old, new in zip(before, states, strict=True) for event in events(old, new)]
        if not found and time.monotonic() - told_s > SIGN_S:
            found = [event for state in states if not state.finished for event in signs_of_life(state)]
        if found:
            told_s = time.monotonic()
            _print(found, as_json, len(states) > 1, out)
        for run, old, new in zip(look.runs, before, states, strict=True):
            if ended(old, new) and (line := tell_end(run, new)):
                print(line, file=sys.stderr, flush=True)
        if all(state.finished for state in states):
            return states
        moved, before = look.news, list(states)
        time.sleep(max(FILES_S, (time.monotonic() - began_s) / SHARE))
        since_s = time.monotonic() - asked_s
        if look.queue and (since_s >= pause_s or (moved and since_s >= SHORTEST_S)):
            snapshot = look.snapshot
            same = look.ask(SHORTEST_S if moved else pause_s / 2).same_as(snapshot)
            cadence.unchanged() if same and not moved else cadence.changed()
            asked_s, pause_s = time.monotonic(), cadence.next_s()


def _print(found: Sequence[Event], as_json: bool, many: bool, out: IO[str]) -> None:
    for event in found:
        if as_json:
            line = event.model_dump_json(exclude_none=True)
        else:
            run = f"{event.run_dir.rsplit('/', 1)[-1]} " if many else ""
            line = f"{clock(event.time)} {run}{event.text}"
        encoding = out.encoding or "utf-8"
        print(line.encode(encoding, errors="replace").decode(encoding), file=out, flush=True)
