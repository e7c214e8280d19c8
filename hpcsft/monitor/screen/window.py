"""The window around the screen: its title, its size, and how it is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.view.words import run_state_text


def title(states: Sequence[RunState]) -> str:
    """What the window of the terminal is called."""
    if len(states) != 1:
        going = sum(not state.finished for state in states)
        return f"hpcsft: {going} of {len(states)} runs go on"
    state = states[0]
    running = next((stage for stage in state.stages if stage.state == "running" and stage.progress), None)
    share = f" {running.name} {100 * running.progress.done // max(1, running.progress.total)}%" if running else ""
    return f"{state.name}: {run_state_text(state)}{share}"


@contextmanager
def titled(console: Console) -> Iterator[None]:
    """Keep the title of the window and give it back (xterm's stack of titles)."""
    console.file.write("\x1b[22;0t")
    try:
        yield
    finally:
        console.file.write("\x1b[23;0t")
        console.file.flush()


@contextmanager
def waking(fd: int) -> Iterator[None]:
    """While it lasts, a terminal of another size wakes who waits for the other end of `fd`; SIGTERM leaves in order."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    os.set_blocking(fd, False)
    handlers = {
        signal.SIGWINCH: signal.signal(signal.SIGWINCH, lambda number, frame: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, leave),
    }
    wakeup = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
