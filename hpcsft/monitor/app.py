"""The monitor: how it shows runs, by where it prints to and what the user has said."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Literal

from rich.console import Console

from hpcsft.monitor.look import Look
from hpcsft.monitor.screen.plain import watch_plain
from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.view.pages import summary
from hpcsft.monitor.view.runs import runs_table
from hpcsft.records import read_json
from hpcsft.rundir import RunDir

Display = Literal["auto", "live", "plain"]

LEFT = "left; the jobs go on"


def watch(
    runs: Sequence[RunDir],
    display: Display = "auto",
    as_json: bool = False,
    stay: bool = True,
    console: Console | None = None,
) -> list[RunState]:
    """Show `runs` until all have ended, or the user leaves, and return their last states. The jobs go on.

    With `stay` the live screen waits for the user even then.
    """
    look, console = Look(runs), console or Console()
    if as_json or not shows_live(display, console):
        return watch_plain(look, as_json, console.file)
    from hpcsft.monitor.screen.live import LiveScreen

    screen = LiveScreen(look, console, stay)
    states = screen.run()
    print_summary(states, console)
    for line in screen.told:
        console.print(line, markup=False, highlight=False)
    if not all(state.finished for state in states):
        console.print(LEFT)
    return states


def shows_live(display: Display, console: Console) -> bool:
    """Is there a live screen? It is for terminals with keys; and not for dumb ones, nor for who has set ACCESSIBLE.

    Unless it is asked for.
    """
    if display != "auto":
        return display == "live"
    keys = sys.stdin is not None and sys.stdin.isatty()
    return keys and console.is_terminal and not console.is_dumb_terminal and not os.environ.get("ACCESSIBLE")


def print_summary(states: Sequence[RunState], console: Console) -> None:
    """One run in full, several as a table."""
    if len(states) == 1:
        console.print(summary(states[0], console.width))
    else:
        console.print(runs_table(states, console.width))


def watch_to_the_end(run: RunDir, quiet: bool = False) -> int:
    """Show `run` until it ends, then its table; returns the exit code. With `quiet` nothing goes to stdout."""
    state = watch([run], stay=False, console=Console(stderr=quiet))[0]
    document = run.report / "report.json"
    if state.state == "done" and document.exists() and not quiet:
        from hpcsft.report.document import Results
        from hpcsft.report.terminal import print_results

        print()
        print_results(Results.model_validate(read_json(document)), Console())
        print(f"\nreport  {run.report}")
    return state.exit_code
