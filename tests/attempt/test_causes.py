"""Guards the decision about another attempt: every kind of end counted and limited apart, and nothing that the user's
code or data did ever tried again.
"""

from __future__ import annotations

import errno
import itertools
from typing import Any

import pytest
import torch

from hpcsft.attempt.causes import CAUSES, attempts_without_progress, cause_of, judge_end
from hpcsft.errors import HpcsftError, StageError
from hpcsft.spec.cluster import RetriesSpec

RETRIES = RetriesSpec(no_progress=0).model_dump()
DEFAULTS = RetriesSpec().model_dump()


class DistBackendError(RuntimeError):
    """As torch.distributed's."""


ERRORS = {
    "host memory": (MemoryError(), "out_of_memory"),
    "GPU memory": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out_of_memory"),
    "disk full": (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk_full"),
    "filesystem gone": (OSError(errno.ESTALE, "Stale file handle"), "node_failure"),
    "disk broken": (OSError(errno.EIO, "Input/output error"), "node_failure"),
    "filesystem silent": (OSError(errno.ETIMEDOUT, "Connection timed out"), "node_failure"),
    "gloo": (RuntimeError("[/gloo/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:4242"), "rank_failure"),
    "gloo, reset": (RuntimeError("Read error [10.0.0.2]:4242: Connection reset by peer"), "rank_failure"),
    "store": (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "rank_failure"),
    "NCCL": (RuntimeError("NCCL error in: ../x.cpp:1, remote process exited or there was a network error"),
             "rank_failure"),
    "NCCL, by its class": (DistBackendError("what it says may change"), "rank_failure"),
    "bad data": (StageError("no training row is left"), "code"),
    "a foreseen error about a peer": (StageError("the judge: connection refused"), "code"),
    "code": (KeyError("loss"), "code"),
    "wrong shape": (RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 4x3)"), "code"),
    "a file that is missing": (FileNotFoundError(errno.ENOENT, "No such file"), "code"),
    "no permission": (PermissionError(errno.EACCES, "Permission denied"), "code"),
    "the letters, but of a value": (ValueError("connection closed by peer"), "code"),
    "ctrl-C": (KeyboardInterrupt(), "code"),
    "sys.exit": (SystemExit(3), "code"),
    "foreseen": (HpcsftError("no"), "code"),
}  # fmt: skip


@pytest.mark.parametrize(("error", "cause"), ERRORS.values(), ids=ERRORS)
def test_what_an_exception_stands_for(error, cause):
    assert cause_of(error) == cause


def rows(*causes: str, progress: bool = True) -> list[dict[str, Any]]:
    """A journal whose attempts ended by `causes`, each after a new commit if there was `progress`."""
    found = []
    for number, cause in enumerate(causes):
        committed = (number + 1, number) if progress else (0, 0)
        found.append({"event": "start"})
        found.append(dict(event="end", cause=cause, committed=committed[0], committed_before=committed[1]))
    return found


LIMITED = [cause for cause, kind in CAUSES.items() if kind.budget]


@pytest.mark.parametrize("cause", LIMITED)
def test_each_cause_is_tried_again_as_often_as_its_own_field_says(cause):
    field = CAUSES[cause].budget
    retries = {**RETRIES, field: 2}
    for times in (1, 2):
        verdict = judge_end(rows(*[cause] * times), cause, "what a rank said", retries)
        assert verdict == (True, f"{CAUSES[cause].text}: what a rank said", None)
    over = judge_end(rows(*[cause] * 3), cause, None, retries)
    assert not over.requeue and over.hint == CAUSES[cause].hint
    assert over.message == f"{CAUSES[cause].text} (3 times; cluster.retries.{field} is 2)"


@pytest.mark.parametrize("cause", LIMITED)
def test_causes_do_not_spend_each_others_budget(cause):
    field = CAUSES[cause].budget
    others = [other for other in LIMITED if CAUSES[other].budget != field] * 5
    assert judge_end(rows(*others, cause), cause, None, {**RETRIES, field: 1}).requeue
    assert not judge_end(rows(*others, cause), cause, None, {**RETRIES, field: 0}).requeue


def test_signals_and_preemptions_share_a_budget():
    retries = {**RETRIES, "preemption": 2}
    assert judge_end(rows("preemption", "signal"), "signal", None, retries).requeue
    assert not judge_end(rows("preemption", "signal", "preemption"), "preemption", None, retries).requeue


@pytest.mark.parametrize("cause", ["code", "cancelled", "disk_full"])
def test_what_another_attempt_would_not_cure_is_never_tried_again(cause):
    for told in ("the loss is NaN", None):
        verdict = judge_end(rows(cause), cause, told, {name: 1000 for name in RETRIES})
        assert not verdict.requeue
        assert verdict.message == (told or CAUSES[cause].text)
        assert verdict.hint == (None if told else CAUSES[cause].hint)


def test_every_budget_is_a_field_of_the_spec():
    assert {kind.budget for kind in CAUSES.values()} - {None} == set(RETRIES) - {"no_progress"}


def test_lack_of_memory_is_not_tried_again_unless_asked_for():
    verdict = judge_end(rows("out_of_memory"), "out_of_memory", "CUDA out of memory", DEFAULTS)
    assert not verdict.requeue and "train.micro_batch_size" in verdict.hint
    assert verdict.message == "ran out of memory: CUDA out of memory (1 time; cluster.retries.out_of_memory is 0)"


def ends(*committed: int) -> list[dict[str, Any]]:
    """Rows `end` of attempts after which so much was committed."""
    before = [0, *itertools.accumulate(committed, max)][: len(committed)]
    return [
        dict(event="end", cause="preemption", committed=now, committed_before=then)
        for now, then in zip(committed, before, strict=True)
    ]


@pytest.mark.parametrize(
    ("committed", "stuck"),
    [((), 0), ((0,), 1), ((0, 0, 0), 3), ((5,), 0), ((0, 0, 5), 0), ((5, 5, 5), 2), ((5, 5, 6, 6), 1), ((5, 3), 1)],
)
def test_attempts_without_progress_are_counted_in_a_row(committed, stuck):
    assert attempts_without_progress(ends(*committed)) == stuck


def test_attempts_that_save_nothing_new_end_the_run_whatever_ended_them():
    causes = ("preemption", "timeout", "hang")
    mixed = [{**row, "cause": cause} for row, cause in zip(ends(5, 5, 5), causes, strict=True)]
    assert judge_end(mixed, "hang", None, DEFAULTS).requeue
    stuck = judge_end([*mixed, *ends(0)], "preemption", None, DEFAULTS)
    assert not stuck.requeue and "cluster.retries.no_progress" in stuck.hint
    assert stuck.message == "3 attempts in a row ended before anything new was saved; the last one: preempted"
    assert judge_end([*mixed, *ends(6)], "preemption", None, DEFAULTS).requeue
    assert judge_end([*mixed, *ends(0)], "preemption", None, {**DEFAULTS, "no_progress": 0}).requeue
