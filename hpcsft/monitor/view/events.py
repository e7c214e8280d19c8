"""What has changed from one look to the next: a line for people, or a JSON line for programs. Pure."""

from __future__ import annotations

from typing import Literal

from hpcsft.monitor.state.facts import State
from hpcsft.monitor.state.run import SCHEMA_VERSION, RunState
from hpcsft.monitor.state.stage import StageState
from hpcsft.monitor.view.words import amount, phrases, run_state_text
from hpcsft.records import Progress, Record
from hpcsft.usage.record import Usage
from hpcsft.usage.text import usage_lines


class Event(Record):
    """One change; its dump is a line of `monitor --json`."""

    schema_version: int = SCHEMA_VERSION
    time: float
    """Seconds since the epoch."""
    run_dir: str
    event: Literal["stage", "run", "slurm", "sign", "usage"]
    """slurm: it does not answer, or answers again; sign: nothing has changed, the run goes on; usage: at the end."""
    stage: str | None = None
    state: State | None = None
    job_ids: list[str] = []
    restarts: int | None = None
    progress: Progress | None = None
    message: str | None = None
    hint: str | None = None
    log: str | None = None
    usage: Usage | None = None
    text: str
    """The line that people see; of usage several."""


def events(before: RunState | None, after: RunState) -> list[Event]:
    """What has changed since `before`; everything the first time. Progress counts in tenths."""
    earlier = {stage.name: _counts(stage) for stage in before.stages} if before else {}
    found = [stage_event(after, stage) for stage in after.stages if earlier.get(stage.name) != _counts(stage)]
    if after.lost and (before is None or before.lost != after.lost):
        found.append(_event(after, "run", f"run: {run_state_text(after)}: {after.lost}", message=after.lost))
    elif before is None or before.state != after.state:
        found.append(_event(after, "run", f"run: {run_state_text(after)}", state=after.state))
    if after.unseen and not after.finished and (before is None or before.unseen != after.unseen):
        found.append(_event(after, "run", f"slurm: is not asked: {after.unseen}", message=after.unseen))
    problem = before.problem if before else None
    if after.problem != problem:
        found.append(_event(after, "slurm", f"slurm: {after.problem or 'answers again'}", message=after.problem))
    return found


def stage_event(run: RunState, stage: StageState) -> Event:
    """Where a stage is now."""
    return _event(run, "stage", plain_line(stage, run.now), **_facts(stage))


def signs_of_life(run: RunState) -> list[Event]:
    """One for each stage that runs, or else for the run."""
    running = [stage for stage in run.stages if stage.state == "running"]
    if not running:
        return [_event(run, "sign", f"run: {run_state_text(run)}", state=run.state)]
    loss = run.train.get("loss")
    told = {"train": f" · loss {loss:.4f}"} if loss is not None else {}
    return [
        _event(run, "sign", plain_line(stage, run.now) + told.get(stage.name, ""), **_facts(stage)) for stage in running
    ]


def usage_events(run: RunState) -> list[Event]:
    """What the run has used, if it is known."""
    if run.usage is None:
        return []
    return [_event(run, "usage", "\n".join(usage_lines(run.usage)), usage=run.usage)]


def plain_line(stage: StageState, now: float) -> str:
    """One stage in one line."""
    said = [amount(stage.progress)] if stage.progress else []
    remark = " · ".join(said + phrases(stage, now))
    line = f"{stage.name}: {stage.state}" + (f" ({remark})" if remark else "")
    if stage.state in ("failed", "waiting"):
        failure = stage.failure
        log = failure.log if failure and failure.log else stage.log
        hint = failure.next if failure else stage.hint
        line += f": {_what_happened(stage)}" + (f" [{log}]" if log else "")
        line += f"; {hint}" if hint else ""
    return line


def _what_happened(stage: StageState) -> str:
    """The name of the failure and the message, each once."""
    title, message = stage.failure.title if stage.failure else "", stage.message or ""
    if not title or title in message:
        return message or "see the log"
    return title if message in title else f"{title}: {message}"


def _facts(stage: StageState) -> dict[str, object]:
    return {
        "stage": stage.name,
        "state": stage.state,
        "job_ids": stage.job_ids,
        "restarts": stage.restarts,
        "progress": stage.progress,
        "message": stage.message,
        "hint": stage.failure.next if stage.failure else stage.hint,
        "log": stage.failure.log if stage.failure and stage.failure.log else stage.log,
    }


def _event(run: RunState, kind: str, text: str, **facts: object) -> Event:
    return Event(time=run.now, run_dir=run.run_dir, event=kind, text=text, **facts)


def _counts(stage: StageState) -> tuple[object, ...]:
    tenth = 10 * stage.progress.done // max(1, stage.progress.total) if stage.progress else None
    return stage.state, stage.message, stage.restarts, tenth
