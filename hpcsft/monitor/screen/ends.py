"""When a monitor sees a run end: what no job could tell is told by it."""

from __future__ import annotations

from hpcsft.monitor.state.run import RunState
from hpcsft.notify.announce import deliver_pending
from hpcsft.rundir import RunDir


def ended(before: RunState | None, after: RunState) -> bool:
    """Has the run ended under our eyes?"""
    return before is not None and not before.finished and after.finished


def tell_end(run: RunDir, state: RunState) -> str | None:
    """Notify of an end, if that is asked for and nobody has; a line about what came of it. May take a minute."""
    stage = next((stage for stage in state.stages if stage.state == state.state), None)
    if stage is None or state.state == "done":
        return deliver_pending(run, state.state)
    hint = stage.failure.next if stage.failure else stage.hint
    return deliver_pending(run, state.state, stage.name, stage.message, hint)
