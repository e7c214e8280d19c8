"""The start and the end of an attempt, as the run directory tells them."""

from __future__ import annotations

import contextlib
import os
import traceback

from hpcsft.attempt.causes import CAUSES, cause_of
from hpcsft.attempt.memory import peak_resident_gb
from hpcsft.attempt.outcome import cause_of_notice, settle_earlier
from hpcsft.errors import HpcsftError, StageError, Stopped, Waiting
from hpcsft.provenance.attempt import record_attempt
from hpcsft.secrets import scrubbed
from hpcsft.stage.context import StageContext


def begin(context: StageContext) -> None:
    """Take the task over, look back at how the attempt before ended, and say that this one runs."""
    context.fence.claim()
    earlier = context.last_status()
    context.last_progress = earlier.progress if earlier else None
    verdict = settle_earlier(context.run, context.stage, context.index, context.task)
    if verdict and not verdict.requeue:
        raise StageError(verdict.message, verdict.hint)
    last_seen = None
    if context.task.world_size > 1 and context.ended_already(earlier):
        context.attempt = earlier.attempt  # another rank was quicker to fail than this one to start
    else:
        last_seen = earlier.updated or None if earlier else None
        context.attempt = earlier.attempt + 1 if earlier else 1
        context.write_status("running")
    nodes = os.environ.get("SLURM_JOB_NODELIST") if context.task.token.in_slurm else None
    done = earlier.progress.done if earlier and earlier.progress else 0
    facts = {"attempt": context.attempt, "world_size": context.task.world_size, "nodes": nodes, "done": done}
    context.journal.write("start", **facts, last_seen=last_seen)
    record_attempt(context.run, context.stage.name, context.index, context.task)


def record_stop(context: StageContext, stop: Stopped) -> None:
    cause = cause_of_notice(context.task.token, context.notice.requested or "")
    step = context.last_progress.done if context.last_progress else 0
    with contextlib.suppress(OSError):  # a full disk must not make a failure of it
        facts = {"cause": cause, "step": step, "signal": context.notice.requested, "memory_gb": peak_resident_gb()}
        context.journal.write("stopped", **facts)
    if context.task.by_hand:  # nothing but that person will go on with it
        stop.hint = f"what is made so far is kept; python jobs/{context.stage.name}.py {context.run.path} goes on"
    with contextlib.suppress(OSError):
        context.write_status("waiting" if context.task.by_hand else "stopped", stop.message, stop.hint)


def record_failure(context: StageContext, error: BaseException) -> None:
    """Write what went wrong, unless another rank of this attempt was first: the first failure is the cause."""
    last = context.last_status()
    if context.ended_already(last) or context.fence.lost(begun=bool(context.journal.of_attempt())):
        return
    cause = cause_of(error)
    if isinstance(error, HpcsftError):
        error.name_run(str(context.run.path))
    if last:
        context.attempt = last.attempt if context.said(last) else last.attempt + 1
    if isinstance(error, HpcsftError):
        message, hint = error.message, error.hint
    elif isinstance(error, (KeyboardInterrupt, SystemExit)):
        message, hint = f"stopped from outside ({type(error).__name__})", None
    else:
        message, hint = traceback.format_exception_only(error)[-1].strip(), CAUSES[cause].hint
    message, hint = scrubbed(message), hint and scrubbed(hint)
    # What may be tried again is not failed yet: whoever decides about the next attempt will say so.
    final = CAUSES[cause].budget is None or context.task.by_hand
    state = "waiting" if isinstance(error, Waiting) else "failed" if final else "stopped"
    context.write_status(state, message, hint)
    facts = {"attempt": context.attempt, "rank": context.task.rank, "cause": cause, "message": message, "hint": hint}
    context.journal.write("failed", **facts, memory_gb=peak_resident_gb())
