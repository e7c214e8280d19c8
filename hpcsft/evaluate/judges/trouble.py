"""How trouble with a judge is told: what happened, at which address, and what to do. Pure."""

from __future__ import annotations

import os

from hpcsft.errors import Waiting
from hpcsft.evaluate.judges.cost import KEPT
from hpcsft.evaluate.judges.failures import Closed, TryLater
from hpcsft.evaluate.judges.settings import JudgeSettings, how_to_give_the_key
from hpcsft.evaluate.verdicts import Verdict
from hpcsft.spec.evaluate import JudgeSpec

TO_MEND = (
    "give it room for a verdict, or ask otherwise: python launch/resume.py RUN_DIR --set "
    f"evaluate.judge.max_tokens=... or evaluate.judge.template=...; {KEPT}"
)


def waiting(settings: JudgeSettings, what: str, hint: str = KEPT) -> Waiting:
    """What to raise if the judge does `what`."""
    return Waiting(f"the judge {settings.model} {what} (at {settings.address})", hint)


def gone(spec: JudgeSpec, settings: JudgeSettings, failure: TryLater | Closed) -> Waiting:
    """What to raise if `failure` is what everybody gets."""
    what, hint = f"does not answer: {failure}", KEPT
    if isinstance(failure, Closed) and failure.unauthorized:
        problem = key_refused(spec)
        what, hint = f"does not answer: {problem}: {failure}", f"{how_to_give_the_key(spec)}; {KEPT}"
    elif isinstance(failure, TryLater) and not failure.connected:
        hint = f"{KEPT}, from a machine with internet or where this address can be reached"
    return waiting(settings, what, hint)


def key_refused(spec: JudgeSpec) -> str:
    """That the key which was sent is not taken, or that there was none."""
    if spec.api_key_file:
        return f"it refuses the key in {spec.api_key_file}"
    key = spec.key_variable
    return f"it refuses the key in {key}" if os.environ.get(key) else f"{key} is not set"


def refusal(reason: str, given_up: bool) -> Verdict:
    """No verdict on a question, for `reason`."""
    return Verdict(None, f"refused: {reason}", refused=True, given_up=given_up)
