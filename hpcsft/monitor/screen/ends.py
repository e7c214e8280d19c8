"""When a monitor sees runs end: what no job could tell is told by it, after the jobs have had their turn."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hpcsft.monitor.state.run import RunState
from hpcsft.notify.announce import deliver_pending
from hpcsft.rundir import RunDir

PATIENCE_S = 120.0
"""So long a monitor that is done waits for the turn of jobs to pass, where somebody is to be told at all."""


def ended(before: RunState | None, after: RunState) -> bool:
    """Has the run ended under our eyes?"""
    if before is None or before.finished or not after.finished or after.gone:
        return False
    return (before.as_of is None) == (after.as_of is None)  # else Slurm had only not been asked yet


@dataclass
class End:
    """One end that may have to be told."""

    run: RunDir
    state: RunState
    due_s: float
    """On the monotonic clock."""


class Ends:
    """Ends that one monitor has seen, until they are told."""

    def __init__(self) -> None:
        self._left: list[End] = []

    def see(self, run: RunDir, before: RunState | None, after: RunState) -> None:
        """Note an end, if it is one; and forget it if the run goes on after all."""
        if ended(before, after):
            self._left.append(End(run, after, time.monotonic()))
        elif not after.finished:
            self._left = [end for end in self._left if end.run is not run]

    def due(self) -> bool:
        """Is there anything to look after?"""
        return any(end.due_s <= time.monotonic() for end in self._left)

    def tell(self) -> list[str]:
        """Notify of what is due; lines about what came of it. May take a minute."""
        lines = []
        for end in [end for end in self._left if end.due_s <= time.monotonic()]:
            line, again_s = _deliver(end)
            lines += [line] if line else []
            if again_s is None:
                self._left = [other for other in self._left if other is not end]
            else:
                end.due_s = time.monotonic() + again_s
        return lines

    def tell_all(self) -> list[str]:
        """Notify of everything, and wait for its turn; lines about what came of it."""
        lines, until_s = self.tell(), time.monotonic() + PATIENCE_S
        while self._left and time.monotonic() < until_s:
            time.sleep(max(0.0, min(end.due_s for end in self._left) - time.monotonic()))
            lines += self.tell()
        return lines


def _deliver(end: End) -> tuple[str | None, float | None]:
    state = end.state
    stage = next((stage for stage in state.stages if stage.state == state.state), None)
    if stage is None or state.state == "done":
        return deliver_pending(end.run, state.state)
    hint = stage.failure.next if stage.failure else stage.hint
    return deliver_pending(end.run, state.state, stage.name, stage.message, hint)
