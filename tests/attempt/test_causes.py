"""Guards the decision about another attempt: every kind of end counted and limited apart, and nothing that the user's
code or data did ever tried again.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest
import torch

from hpcsft.attempt.causes import CAUSES, UnfitNodes, attempts_without_progress, cause_of, judge_end, unfit_nodes
from hpcsft.errors import HpcsftError, StageError, Waiting
from hpcsft.spec.cluster import RetriesSpec

RETRIES = RetriesSpec(no_progress=0).model_dump()
DEFAULTS = RetriesSpec().model_dump()


class DistBackendError(RuntimeError):
    """As torch.distributed's."""


class DistStoreError(RuntimeError):
    """As torch.distributed's."""


ERRORS = {
    "no key": (Waiting("there is no key"), "waiting"),
    "host memory": (MemoryError(), "out_of_memory"),
    "GPU memory": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out_of_memory"),
    "GPU memory, as CUDA says it": (RuntimeError("CUDA error: out of memory"), "out_of_memory"),
    "GPU memory, as its libraries say it": (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), "out_of_memory"),
    "GPU memory, as NCCL says it": (torch.distributed.DistBackendError("Cuda: out of memory"), "out_of_memory"),
    "memory, as C++ says it": (RuntimeError("std::bad_alloc"), "out_of_memory"),
    "no memory for a process": (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory"),
    "no memory for a tensor": (
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
        "out_of_memory",
    ),
    "memory of the GPU is broken": (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "bad_node"),
    "a GPU that went away": (RuntimeError("CUDA error: GPU has fallen off the bus"), "bad_node"),
    "a GPU of somebody else": (
        RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"),
        "bad_node",
    ),
    "nodes that were found unfit": (UnfitNodes("n2: no room for temporary files", ["n2"]), "bad_node"),
    "what is wrong everywhere": (UnfitNodes("every node of the job: no GPU", []), "bad_node"),
    "disk full": (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk_full"),
    "filesystem gone": (OSError(errno.ESTALE, "Stale file handle"), "node_failure"),
    "disk broken": (OSError(errno.EIO, "Input/output error"), "node_failure"),
    "filesystem silent": (OSError(errno.ETIMEDOUT, "Connection timed out"), "node_failure"),
    "gloo": (RuntimeError("[/gloo/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:4242"), "rank_failure"),
    "gloo, reset": (RuntimeError("Read error [10.0.0.2]:4242: Connection reset by peer"), "rank_failure"),
    "gloo, silent": (RuntimeError("Timed out waiting 1800000ms for recv operation to complete"), "rank_failure"),
    "gloo, the pair is gone": (RuntimeError("Application timeout caused pair closure"), "rank_failure"),
    "store, silent": (
        RuntimeError("The client socket has timed out after 60000ms while trying to connect to (n1, 20001)"),
        "rank_failure",
    ),
    "store, by its class": (DistStoreError("what it says may change"), "rank_failure"),
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
    """A journal whose attempts ended by `causes`, each with something new kept if there was `progress`."""
    found: list[dict[str, Any]] = []
    for cause in causes:
        found += [{"event": "start"}, {"event": "end", "cause": cause, "progressed": progress}]
    return found


LIMITED = [cause for cause, kind in CAUSES.items() if kind.budget]


@pytest.mark.parametrize("cause", LIMITED)
def test_each_cause_is_tried_again_as_often_as_its_own_field_says(cause):
    field = CAUSES[cause].budget
    retries = {**RETRIES, field: 2}
    for times in (1, 2):
        verdict = judge_end(rows(*[cause] * times), cause, "what a rank said", retries, halvings=9)
        assert verdict == (True, f"{CAUSES[cause].text}: what a rank said", None)
    over = judge_end(rows(*[cause] * 3), cause, None, retries, halvings=9)
    assert not over.requeue and over.hint == CAUSES[cause].hint
    assert over.message == f"{CAUSES[cause].text} (3 times; cluster.retries.{field} is 2)"


@pytest.mark.parametrize("cause", LIMITED)
def test_causes_do_not_spend_each_others_budget(cause):
    field = CAUSES[cause].budget
    others = [other for other in LIMITED if CAUSES[other].budget != field] * 5
    assert judge_end(rows(*others, cause), cause, None, {**RETRIES, field: 1}, halvings=9).requeue
    assert not judge_end(rows(*others, cause), cause, None, {**RETRIES, field: 0}, halvings=9).requeue


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


def test_lack_of_memory_is_tried_again_while_the_micro_batch_can_be_halved():
    told = "CUDA out of memory"
    assert judge_end(rows("out_of_memory"), "out_of_memory", told, DEFAULTS, halvings=1).requeue
    verdict = judge_end(rows("out_of_memory", "out_of_memory"), "out_of_memory", told, DEFAULTS, halvings=1)
    assert not verdict.requeue and "train.micro_batch_size" in verdict.hint
    assert verdict.message == f"ran out of memory: {told} (2 times; no smaller micro batch can be tried)"
    verdict = judge_end(rows("out_of_memory"), "out_of_memory", told, {**DEFAULTS, "out_of_memory": 0}, halvings=1)
    assert not verdict.requeue
    assert verdict.message == f"ran out of memory: {told} (1 time; cluster.retries.out_of_memory is 0)"


def test_a_node_that_is_done_without_is_progress():
    """Or three bad nodes at the start would end a run that a fourth would have served."""
    many = [{**row, "cause": "bad_node"} for row in ends(*[False] * 3)]
    assert attempts_without_progress(many) == 0
    assert judge_end(many, "bad_node", "n3: no GPU", DEFAULTS).requeue
    assert attempts_without_progress([*many, *ends(False, False)]) == 2


def test_nodes_count_and_not_only_attempts():
    """A rack whose driver was broken by an update is found at once, and would cost as many exclusions."""
    found = [
        {"event": "end", "cause": "bad_node", "progressed": False, "unfit": names}
        for names in (["n1", "n2"], ["n2", "n3"])
    ]
    assert unfit_nodes(found) == ["n1", "n2", "n3"]
    assert judge_end(found, "bad_node", "n3: no GPU", DEFAULTS).requeue
    over = judge_end(found, "bad_node", "n3: no GPU", {**DEFAULTS, "bad_node": 2})
    assert not over.requeue
    assert over.message == "a node is not fit for use: n3: no GPU (3 nodes; cluster.retries.bad_node is 2)"


def test_halving_is_progress():
    """However small the micro batch has to become, the limit of attempts without progress does not end the run."""
    many = [{**row, "cause": "out_of_memory"} for row in ends(*[False] * 5)]
    assert attempts_without_progress(many) == 0
    assert judge_end(many, "out_of_memory", None, DEFAULTS, halvings=5).requeue
    assert attempts_without_progress([*many, *ends(False, False)]) == 2


def ends(*progressed: bool) -> list[dict[str, Any]]:
    """Rows `end` of attempts, by whether they kept anything new."""
    return [dict(event="end", cause="preemption", progressed=each) for each in progressed]


@pytest.mark.parametrize(
    ("progressed", "stuck"),
    [((), 0), ((False,), 1), ((False, False, False), 3), ((True,), 0), ((False, False, True), 0),
     ((True, False, False), 2), ((True, False, True, False), 1)],
)  # fmt: skip
def test_attempts_without_progress_are_counted_in_a_row(progressed, stuck):
    assert attempts_without_progress(ends(*progressed)) == stuck


def test_attempts_that_save_nothing_new_end_the_run_whatever_ended_them():
    causes = ("preemption", "timeout", "hang")
    mixed = [{**row, "cause": cause} for row, cause in zip(ends(True, False, False), causes, strict=True)]
    assert judge_end(mixed, "hang", None, DEFAULTS).requeue
    stuck = judge_end([*mixed, *ends(False)], "preemption", None, DEFAULTS)
    assert not stuck.requeue and "cluster.retries.no_progress" in stuck.hint
    assert stuck.message == "3 attempts in a row ended before anything new was saved; the last one: preempted"
    assert judge_end([*mixed, *ends(True)], "preemption", None, DEFAULTS).requeue
    assert judge_end([*mixed, *ends(False)], "preemption", None, {**DEFAULTS, "no_progress": 0}).requeue
