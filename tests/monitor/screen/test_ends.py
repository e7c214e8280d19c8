"""Guards who is told of an end by a monitor: of ends that it has seen, once, and of no run that goes on after all."""

from __future__ import annotations

import pytest

from hpcsft.monitor.screen import ends as module
from hpcsft.monitor.screen.ends import Ends, ended
from hpcsft.notify.announce import Delivery
from hpcsft.rundir import RunDir
from tests.monitor.screens import FAILED, FINISHED, RUNNING

RUN = RunDir("/runs/tiny-0123abcd")


def test_what_is_an_end():
    assert ended(RUNNING, FAILED) and ended(RUNNING, FINISHED)
    assert not ended(None, FAILED), "it had ended before we came"
    assert not ended(FAILED, FAILED) and not ended(RUNNING, RUNNING)
    unasked = RUNNING.model_copy(update={"as_of": None})
    assert not ended(unasked, FAILED), "Slurm had only not been asked yet: it may have ended last week"
    assert not ended(RUNNING, RUNNING.model_copy(update={"gone": True})), "there is nothing left to read"


@pytest.fixture
def deliveries(monkeypatch):
    """What deliver_pending answers, and what it was asked."""
    answers, calls = [], []
    monkeypatch.setattr(module, "deliver_pending", lambda *given: calls.append(given) or answers.pop(0))
    return answers, calls


def test_an_end_is_told_once_with_what_went_wrong(deliveries):
    answers, calls = deliveries
    answers += [Delivery(line="notified: command x")]
    seen = Ends()
    seen.see(RUN, RUNNING, FAILED)
    assert seen.due() and seen.tell() == ["notified: command x"] and not seen.due()
    seen.see(RUN, FAILED, FAILED)
    assert seen.tell() == [] and len(calls) == 1
    assert calls[0][1:4] == ("failed", "train", FAILED.stages[1].message) and "resume.py" in calls[0][4]


def test_the_jobs_have_their_turn_first(deliveries):
    answers, calls = deliveries
    answers += [Delivery(again_s=60.0), Delivery(again_s=0.01), Delivery(line="told")]
    seen = Ends()
    seen.see(RUN, RUNNING, FINISHED)
    assert seen.tell() == [] and not seen.due()
    seen.see(RUN, FINISHED, RUNNING)  # it was resumed meanwhile
    assert not seen.due() and seen.tell_all() == [] and len(calls) == 1
    seen.see(RUN, RUNNING, FINISHED)
    assert seen.tell_all() == ["told"]
