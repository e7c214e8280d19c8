"""Why an attempt ended, told apart, counted apart and limited apart. Pure.

What the cluster did is tried again, up to the limit of its own kind in `cluster.retries`; what the user's code or data
did is not: it would do it again.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hpcsft.errors import HpcsftError, StageError, Waiting


class Cause(NamedTuple):
    """One kind of end."""

    text: str
    budget: str | None
    """Field of `cluster.retries` that limits it; None: never tried again."""
    hint: str


CAUSES = {
    "preemption": Cause("preempted", "preemption", "a partition or qos that is not preempted would help"),
    "signal": Cause("stopped by a signal", "preemption", "somebody sent it: Slurm knows of no preemption"),
    "timeout": Cause("reached its time limit", "timeout", "raise cluster.train.time, or cluster.retries.timeout"),
    "node_failure": Cause("lost without notice", "node_failure", "the node failed, or Slurm took it without a word"),
    "bad_node": Cause("a node is not fit for use", "bad_node", "whoever runs the cluster should look at the node"),
    "rank_failure": Cause("a rank died", "rank_failure", "the log of the rank and the node's own log may tell why"),
    "out_of_memory": Cause(
        "ran out of memory",
        "out_of_memory",
        "lower train.micro_batch_size or data.max_length, raise zero_stage or mem_gb, or use train.offload",
    ),
    "hang": Cause("hung", "hang", "the logs of all ranks have their stacks; train.hang_after_s sets the patience"),
    "disk_full": Cause("no space left on the device", None, "make room, then python launch/resume.py RUN_DIR"),
    "waiting": Cause("waits for a person", None, "the message says what is needed"),
    "environment": Cause(
        "the job's environment lacks something", None, "mend it, or cluster in the spec (resume.py RUN_DIR --set)"
    ),
    "code": Cause("failed", None, "the log has the traceback"),
    "cancelled": Cause("cancelled", None, "python launch/resume.py RUN_DIR goes on"),
}
"""Every cause."""

LOST_PEER = (
    "closed by peer",
    "reset by peer",
    "connection refused",
    "broken pipe",
    "socket timeout",
    "wait timeout",
    "recvvalue failed",
    "timed out waiting",
    "pair closure",
    "client socket has timed out",
    "nccl error",
    "ncclremoteerror",
    "ncclsystemerror",
    "remote process exited",
    "watchdog caught collective operation timeout",
)
"""What torch.distributed says, in lower case, when another rank has gone."""

NO_MEMORY = ("can't allocate memory", "out of memory", "status_alloc_failed", "bad_alloc")
"""What torch, CUDA, its libraries and NCCL say when memory has run out, in lower case."""

BROKEN_GPU = ("uncorrectable ecc", "fallen off the bus", "busy or unavailable")
"""What CUDA says of a node whose GPUs are not fit for use, in lower case."""

LAUNCH_FAILED_LOG = (
    "unable to create step",
    "task launch failed",
    "communication connection failure",
    "invalid job credential",
    "expired",
)
"""What srun says, in lower case, when a node did not even start its tasks."""

OUT_OF_MEMORY_LOG = ("oom-kill", "oom_kill", "out of memory")
"""What slurmstepd writes, in lower case, when the kernel has ended a task for its memory."""

SLURM_STATES = {
    "PREEMPTED": "preemption",
    "TIMEOUT": "timeout",
    "NODE_FAIL": "node_failure",
    "BOOT_FAIL": "node_failure",
    "OUT_OF_MEMORY": "out_of_memory",
}
"""How sacct calls the end of an attempt, where that tells more than the run directory."""


class UnfitNodes(StageError):
    """Nodes on which training cannot run. `nodes` are their names; none, where it is hardly the fault of any one."""

    def __init__(self, message: str, nodes: Sequence[str]):
        super().__init__(message, CAUSES["bad_node"].hint)
        self.nodes = tuple(nodes)


def cause_of(error: BaseException) -> str:
    """The cause that an exception in a rank stands for."""
    name, text = type(error).__name__, str(error).lower()
    no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
    said_so = isinstance(error, RuntimeError) and any(sign in text for sign in NO_MEMORY)
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or no_memory or said_so:
        return "out_of_memory"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full"
    if isinstance(error, OSError) and error.errno in (errno.ESTALE, errno.EIO, errno.ETIMEDOUT):
        return "node_failure"  # the shared filesystem went away
    if isinstance(error, UnfitNodes) or any(sign in text for sign in BROKEN_GPU):
        return "bad_node"
    if isinstance(error, HpcsftError):
        return "waiting" if isinstance(error, Waiting) else "code"
    lost_peer = isinstance(error, (RuntimeError, ConnectionError)) and any(sign in text for sign in LOST_PEER)
    return "rank_failure" if lost_peer or name in ("DistBackendError", "DistNetworkError", "DistStoreError") else "code"


def killed(exit_status: int) -> bool:
    """Did a rank die of a signal that asks nobody to stop? srun and the local driver then tell the others to."""
    asking = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)
    return exit_status > 128 and exit_status - 128 not in asking


class Verdict(NamedTuple):
    """What becomes of a task whose attempt has ended."""

    requeue: bool
    message: str
    hint: str | None


def judge_end(
    rows: Sequence[Mapping[str, Any]], cause: str, told: str | None, retries: Mapping[str, int], halvings: int = 0
) -> Verdict:
    """May the task be tried again? `rows` are the journal's of one submission, with the row `end` of this attempt.

    `told` is what a rank said about its failure. A cause beyond its budget and `retries["no_progress"]` attempts in a
    row that kept nothing new end the run. What ran out of memory would do so again, were it not for `halvings`: so
    often the micro batch can be halved.
    """
    kind = CAUSES[cause]
    ends = [row for row in rows if row["event"] == "end"]
    if kind.budget is None:
        return Verdict(False, told or kind.text, None if told else kind.hint)
    because = f"{kind.text}: {told}" if told else kind.text
    stuck = attempts_without_progress(ends)
    limit = retries["no_progress"]
    if limit and stuck >= limit:
        message = f"{stuck} attempts in a row ended before anything new was saved; the last one: {because}"
        return Verdict(False, message, "save more often (train.checkpoint), or raise cluster.retries.no_progress")
    used, noun = sum(_shares(row["cause"], kind.budget) for row in ends), "time"
    if cause == "bad_node" and len(unfit_nodes(rows)) > used:  # one attempt may find several
        used, noun = len(unfit_nodes(rows)), "node"
    limit, limited_by = retries[kind.budget], f"cluster.retries.{kind.budget} is {retries[kind.budget]}"
    if cause == "out_of_memory" and halvings < limit:
        limit, limited_by = halvings, "no smaller micro batch can be tried"
    if used > limit:
        return Verdict(False, f"{because} ({used} {noun}{'s' if used > 1 else ''}; {limited_by})", kind.hint)
    return Verdict(True, because, None)


def _shares(cause: str, budget: str) -> bool:
    return CAUSES[cause].budget == budget


def unfit_nodes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The nodes that the rows `end` of the journal call unfit, each once, the first found first."""
    return list(dict.fromkeys(node for row in rows if row["event"] == "end" for node in row.get("unfit", ())))


def attempts_without_progress(ends: Sequence[Mapping[str, Any]]) -> int:
    """How many of the last attempts in a row kept nothing new.

    One that ran out of memory, or found a node unfit, does not count: the next is another.
    """
    count = 0
    for row in reversed(ends):
        if row["progressed"]:
            break
        count += row["cause"] not in ("out_of_memory", "bad_node")
    return count
