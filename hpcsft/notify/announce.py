"""Tell the user of a run's end: from the job that ends it, and from the monitor what no job could tell."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence

from hpcsft.notify.command import run_command
from hpcsft.notify.event import Event, ended_by_hand, event_of
from hpcsft.notify.lacks import webhook_address, webhook_problem
from hpcsft.notify.message import document_of, filled_in, variables_of, win_rates
from hpcsft.notify.tries import Tries
from hpcsft.records import now, read_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.notify import NotifySpec, host_of


def announce(run: RunDir) -> None:
    """Tell what `run` is at, if that is to be told and nobody has tried to: for who ends a stage for good.

    Never raises, and takes no longer than the timeouts of the command and the webhook together.
    """
    try:
        spec = ExperimentSpec.model_validate(read_json(run.spec))
        submission = run.read_submission()
        event = event_of(submission, list(run.read_statuses()), run.cancelled.exists())
        if spec.notify is None or submission is None or event is None or event.state not in spec.notify.on:
            return
        tries, ways = Tries(run, event.state, len(submission.jobs)), _ways(spec.notify)
        if tries.claim(1, ways):
            print(f"hpcsft: {_tell(run, spec, event, tries, 1, ways)}", flush=True)
    except Exception as error:  # the end of the job must not hang on it
        with contextlib.suppress(OSError):
            print(f"hpcsft: could not notify: {type(error).__name__}", file=sys.stderr, flush=True)


def deliver_pending(
    run: RunDir, state: str, stage: str | None = None, message: str | None = None, hint: str | None = None
) -> str | None:
    """Tell what no job could, for who sees that `run` has come to `state`; returns a line about it.

    None if there is nothing to do: it was told, somebody is at it, nobody is to be told, or the last stage was started
    by hand. Never raises.
    """
    try:
        spec = ExperimentSpec.model_validate(read_json(run.spec))
        submission = run.read_submission()
        if spec.notify is None or submission is None or state not in spec.notify.on or run.cancelled.exists():
            return None
        tries = Tries(run, state, len(submission.jobs))
        due = tries.due(_ways(spec.notify))
        if due is None or ended_by_hand(list(run.read_statuses())):
            return None
        number, ways = due
        if ways == ["webhook"] and (problem := webhook_problem(spec.notify)):
            return f"could not notify: webhook: {problem}"  # no try: another shell may know it
        if not tries.claim(number, ways):
            return None
        return _tell(run, spec, Event(state, stage, message, hint), tries, number, ways)
    except Exception as error:
        return f"could not notify: {getattr(error, 'strerror', None) or type(error).__name__}"


def _ways(notify: NotifySpec) -> list[str]:
    return [way for way in ("command", "webhook") if getattr(notify, way) is not None]


def _tell(run: RunDir, spec: ExperimentSpec, event: Event, tries: Tries, number: int, ways: Sequence[str]) -> str:
    """Tell `event` in all `ways`, write down what came of it, and put it into a line."""
    result = _result(run) if event.state == "done" else None
    document = document_of(spec.name, str(run.path), event, result, now())
    names, failures = {}, {}
    for way in ways:
        names[way], failure = _send_command(spec.notify, document) if way == "command" else _post(spec.notify, document)
        if failure:
            failures[way] = failure
    with contextlib.suppress(OSError):  # a full disk: it is told nevertheless
        tries.close(number, failures)
    told = [names[way] for way in ways if way not in failures]
    untold = [f"{names[way]}: {failure}" for way, failure in failures.items()]
    lines = [f"notified: {', '.join(told)}"] if told else []
    return "; ".join([*lines, *([f"could not notify: {', '.join(untold)}"] if untold else [])])


def _send_command(notify: NotifySpec, document: dict[str, object]) -> tuple[str, str | None]:
    """What the command is called, and why it failed."""
    words = filled_in(notify.command or [], document)
    name = f"command {os.path.basename(words[0])}"
    return name, run_command(words, str(document["run_dir"]), variables_of(document), json.dumps(document))


def _post(notify: NotifySpec, document: dict[str, object]) -> tuple[str, str | None]:
    """What may be told of the webhook, and why it failed."""
    from hpcsft.notify.webhook import post

    if problem := webhook_problem(notify):
        return "webhook", problem
    address = webhook_address(notify)
    return f"webhook {host_of(address)}", post(address, document)


def _result(run: RunDir) -> str | None:
    """The win rates, if a report tells them."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        return win_rates(read_json(run.report / "report.json"))
    return None
