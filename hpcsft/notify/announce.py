"""Tell the user of a run's end: from the job that ends it, and from the monitor what no job could tell."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from hpcsft.errors import HpcsftError
from hpcsft.notify.command import run_command
from hpcsft.notify.event import Event, ended_by_hand, event_of, last_word_s
from hpcsft.notify.lacks import ways_that_lack, webhook_address, webhook_problem
from hpcsft.notify.message import document_of, filled_in, variables_of, win_rates
from hpcsft.notify.tries import MAX_TRIES, Tries
from hpcsft.records import now, read_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.notify import NotifySpec, host_of

JOBS_TURN_S = 60.0
"""So long after the last word of a run it is for its jobs to tell the end: they know the secrets, and come to it only
after Python has started and whatever else they have to do. Much more than clocks differ."""

AGAIN_S = 2.0
"""So often who may have to tell an end looks whether a job has."""


class Delivery(NamedTuple):
    """What came of a look at whether there is an end to tell."""

    line: str | None = None
    """What was told, and what could not be; None if nothing was tried."""
    again_s: float | None = None
    """Look again after so long: it is the turn of the jobs, or somebody is at it. None: that was all."""


def announce(run: RunDir) -> None:
    """Tell what `run` is at, in all ways that nobody has tried, if it is to be told: for who ends a stage for good.

    Never raises, and takes no longer than the timeouts of the command and the webhook together.
    """
    try:
        spec = ExperimentSpec.model_validate(read_json(run.spec))
        submission = run.read_submission()
        event = event_of(submission, list(run.read_statuses()), run.cancelled.exists())
        if spec.notify is None or submission is None or event is None or event.state not in spec.notify.on:
            return
        tries, ways = Tries(run, event.state, len(submission.jobs)), _ways(spec.notify)
        for _ in range(MAX_TRIES):  # again if another has begun a try, which need not be in all ways
            standing = tries.look(ways)
            if not standing.untried:
                return
            if tries.claim(standing.number, standing.untried):
                print(f"hpcsft: {_tell(run, spec, event, tries, standing.number, standing.untried)}", flush=True)
                return
    except Exception as error:  # the end of the job must not hang on it
        with contextlib.suppress(OSError):
            print(f"hpcsft: could not notify: {type(error).__name__}", file=sys.stderr, flush=True)


def deliver_pending(
    run: RunDir, state: str, stage: str | None = None, message: str | None = None, hint: str | None = None
) -> Delivery:
    """Tell what no job could, for who sees that `run` has come to `state`.

    Jobs have their turn first. A way for which something is missing here is left to who has it. Nothing is done if it
    was told, nobody is to be told, the last stage was started by hand, or the run is another user's, whose command is
    not ours to run. Never raises, never waits for its turn.
    """
    try:
        if _is_foreign(run):
            return Delivery()
        spec = ExperimentSpec.model_validate(read_json(run.spec))
        submission = run.read_submission()
        if spec.notify is None or submission is None or state not in spec.notify.on or run.cancelled.exists():
            return Delivery()
        tries, statuses = Tries(run, state, len(submission.jobs)), list(run.read_statuses())
        standing = tries.look(_ways(spec.notify))
        if ended_by_hand(statuses) or not (standing.left or standing.busy):
            return Delivery()
        early_s = _early_s(last_word_s(statuses)) if standing.number == 1 else 0.0
        if early_s > 0:
            return Delivery(again_s=min(early_s, AGAIN_S))
        if standing.busy:
            return Delivery(again_s=AGAIN_S)
        lacks = ways_that_lack(spec.notify)
        ways = [way for way in standing.left if way not in lacks]
        if ways and not tries.claim(standing.number, ways):
            return Delivery(again_s=AGAIN_S)
        event = Event(state, stage, message, hint)
        parts = [_tell(run, spec, event, tries, standing.number, ways)] if ways else []
        parts += [f"could not notify: {way}: {lacks[way]}" for way in standing.left if way in lacks]
        return Delivery("; ".join(parts))
    except Exception as error:
        return Delivery(f"could not notify: {getattr(error, 'strerror', None) or type(error).__name__}")


def _is_foreign(run: RunDir) -> bool:
    """Is it another user's, or could another have written its spec?"""
    try:
        run.refuse_foreign()
    except HpcsftError:
        return True
    return False


def _early_s(last_word_s: float | None) -> float:
    """How much of the jobs' turn is left. A last word from the far future is no fresher than one from long ago."""
    return JOBS_TURN_S - abs(time.time() - last_word_s) if last_word_s is not None else 0.0


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
