"""All jobs of this user as Slurm tells them: squeue those that it remembers, sacct those that it has forgotten."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from hpcsft.slurm_client import TERMINAL, duration_s, run_client

NO_ACCOUNTS = "accounting storage is disabled"
"""What sacct says on a cluster that keeps no accounts."""


class QueueEntry(NamedTuple):
    """One job, or one task of an array, as squeue shows it."""

    job_id: str
    """Id of the job or of the whole array."""
    index: int
    state: str
    reason: str
    elapsed: str
    limit: str
    start: str = ""
    """When it started, or is expected to start: local time in ISO 8601, or N/A."""
    nodes: str = ""
    end: str = ""
    """When it ended, or its time limit would end it; as `start`."""

    @property
    def alive(self) -> bool:
        """Does Slurm still hold the job? REQUEUED is not the end of it."""
        return self.state not in TERMINAL

    @property
    def elapsed_s(self) -> int | None:
        """Seconds since this attempt started."""
        return duration_s(self.elapsed)

    @property
    def limit_s(self) -> int | None:
        """Its time limit in seconds; None if it has none."""
        return duration_s(self.limit)


def read_queue(users: Sequence[str] = ()) -> str:
    """All jobs of `users` (none: of this user) that Slurm still remembers, with one squeue: text for `parse_queue`.

    ClusterError if Slurm does not answer, or does not know one of the users.
    """
    fields = "%F|%K|%T|%M|%l|%S|%e|%N|%r"
    whose = f"--user={','.join(users)}" if users else "--me"
    return run_client("squeue", "--noheader", whose, "--array", "--states=all", f"--format={fields}")


def query_queue() -> list[QueueEntry]:
    """All jobs of this user that Slurm still remembers. ClusterError if it does not answer."""
    return parse_queue(read_queue())


def parse_queue(output: str) -> list[QueueEntry]:
    """The lines of read_queue."""
    entries = []
    for line in output.splitlines():
        if line.startswith("CLUSTER: "):  # with SLURM_CLUSTERS set
            continue
        job_id, index, state, elapsed, limit, start, end, nodes, reason = line.strip().split("|", 8)
        number = int(index) if index.isdigit() else 0
        entries.append(QueueEntry(job_id, number, state, reason, elapsed, limit, start, nodes, end))
    return entries


def read_past(job_ids: Sequence[str]) -> str:
    """How jobs ended that squeue has forgotten, with a single sacct: text for `parse_past`.

    ClusterError if there are no accounts (see `NO_ACCOUNTS`), or they do not answer.
    """
    fields = "JobID,State,Elapsed,Timelimit,Start,End,NodeList"
    return run_client("sacct", "-n", "-X", "-D", "-P", "-j", ",".join(job_ids), "-o", fields)


def parse_past(output: str) -> list[QueueEntry]:
    """The lines of read_past: one for each task, of its last attempt."""
    latest: dict[tuple[str, int], QueueEntry] = {}
    for line in output.splitlines():
        task, state, elapsed, limit, start, end, nodes = line.strip().split("|", 6)
        job_id, _, indexes = task.partition("_")
        for index in array_indexes(indexes) if indexes else [0]:
            latest[job_id, index] = QueueEntry(job_id, index, state.split()[0], "", elapsed, limit, start, nodes, end)
    return list(latest.values())


def array_indexes(text: str) -> list[int]:
    """Tasks of an array as Slurm writes them; what it cuts off with dots is missing.

    >>> array_indexes("3"), array_indexes("[0,4-6%2]"), array_indexes("[0-8:4]")
    ([3], [0, 4, 5, 6], [0, 4, 8])
    """
    found: list[int] = []
    for part in text.strip("[]").partition("%")[0].split(","):
        if match := re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part):
            first, last, step = match.groups()
            found += range(int(first), int(last or first) + 1, int(step or 1))
    return found
