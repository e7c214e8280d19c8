"""What went wrong, or what is waited for; and at the end, what it took. Pure."""

from __future__ import annotations

import re

from rich.console import Group, RenderableType
from rich.text import Text

from hpcsft.monitor.state.run import RunState
from hpcsft.monitor.state.stage import StageState
from hpcsft.monitor.view.words import STYLE, answered
from hpcsft.usage.text import usage_lines


def troubles(state: RunState) -> list[RenderableType]:
    """One block for each stage that failed or waits for a person."""
    return [trouble(stage) for stage in state.stages if stage.state in ("failed", "waiting")]


def trouble(stage: StageState) -> Group:
    """What happened, the line of the log that decided it, and what to do next."""
    what = "failed" if stage.state == "failed" else "waits"
    failure = stage.failure
    message = stage.message or "see the log"
    title = failure.title if failure and failure.title not in message else message
    lines = [Text.assemble((f"{stage.name} {what}: ", STYLE[stage.state]), title)]
    said = [title]
    line = re.sub(r"^\[rank\d+\]: ", "", failure.line) if failure and failure.line else None
    for text in (stage.message, line):
        if text and not any(text in earlier for earlier in said):
            lines.append(Text(f"  {text}"))
            said.append(text)
    if log := failure.log if failure and failure.log else stage.log:
        line = f":{failure.line_number}" if failure and failure.line_number else ""
        lines.append(Text(f"log: {log}{line}", style="dim"))
    if hint := failure.next if failure else stage.hint:
        lines.append(Text(f"hint: {hint}"))
    return Group(*lines)


def silence(state: RunState) -> Text | None:
    """Why what is shown is older than it should be: Slurm does not answer, or the run directory cannot be read."""
    if state.lost:
        return Text(f"cannot be read now: {state.lost}", style="yellow")
    if state.unseen and not state.finished:
        return Text(f"{state.unseen}: Slurm is not asked, what is shown comes from the run directory", style="yellow")
    if not state.problem:
        return None
    since = f"as of {answered(state)}" if state.as_of else "what is shown comes from the run directory"
    return Text(f"Slurm does not answer, {since}: {state.problem}", style="yellow")


def used(state: RunState, width: int) -> RenderableType | None:
    """What the run took, and what to ask for next time."""
    if state.usage is None:
        return None
    return Group(Text("what it used", style="dim"), *map(Text, usage_lines(state.usage, width)))
