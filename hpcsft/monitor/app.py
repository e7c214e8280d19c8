"""The monitor's loop: look, show, wait; live on a terminal, one line per change in a pipe."""

from __future__ import annotations

import time
from typing import Literal

from rich.console import Console
from rich.live import Live

from hpcsft.cluster.slurm import slurm_here
from hpcsft.monitor.collect import collect
from hpcsft.monitor.state import RunState, run_state
from hpcsft.monitor.view import changed_lines, render
from hpcsft.records import read_json
from hpcsft.rundir import RunDir

Display = Literal["auto", "live", "plain"]
INTERVAL_S = {"slurm": {"live": 15.0, "plain": 60.0}, "local": {"live": 1.0, "plain": 1.0}}
FIRST_LOOK_S = 2.0
"""After a start the next looks come sooner, growing to the interval."""


def look(run: RunDir, tolerant: bool = False) -> RunState:
    """The state of `run` now; see `collect` for `tolerant`."""
    return run_state(collect(run, tolerant))


def watch(run: RunDir, display: Display = "auto", console: Console | None = None) -> RunState:
    """Show `run` until nothing changes any more, and return its last state. Ctrl-C leaves the jobs running."""
    console = console or Console()
    live = display == "live" or (display == "auto" and console.is_terminal)
    submission = run.read_submission()
    kind = submission.cluster if submission else ("slurm" if slurm_here() else "local")
    interval_s = INTERVAL_S[kind]["live" if live else "plain"]
    return _watch_live(run, console, interval_s) if live else _watch_plain(run, console, interval_s)


def _watch_live(run: RunDir, console: Console, interval_s: float) -> RunState:
    state = look(run)
    pause_s = min(FIRST_LOOK_S, interval_s)
    with Live(render(state, console.width), console=console, auto_refresh=False) as screen:
        while not state.finished:
            time.sleep(pause_s)
            pause_s = min(interval_s, pause_s * 1.5)
            state = look(run, tolerant=True)
            screen.update(render(state, console.width), refresh=True)
    return state


def _watch_plain(run: RunDir, console: Console, interval_s: float) -> RunState:
    state, before = look(run), None
    pause_s = min(FIRST_LOOK_S, interval_s)
    while True:
        for line in changed_lines(before, state):
            console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, highlight=False, soft_wrap=True)
        if state.finished:
            return state
        time.sleep(pause_s)
        pause_s = min(interval_s, pause_s * 1.5)
        before, state = state, look(run, tolerant=True)


def watch_to_the_end(run: RunDir, quiet: bool = False) -> int:
    """Show `run` until it ends, then its table; returns the exit code. With `quiet` nothing goes to stdout."""
    state = watch(run, console=Console(stderr=quiet))
    document = run.report / "report.json"
    if state.state == "done" and document.exists() and not quiet:
        from hpcsft.report.document import Results
        from hpcsft.report.terminal import print_results

        print_results(Results.model_validate(read_json(document)), Console())
        print(f"\nreport  {run.report}")
    return state.exit_code
