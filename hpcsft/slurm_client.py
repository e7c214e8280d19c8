"""What Slurm's clients are asked, on login and on compute nodes: the queue, one job, the past, cancel and requeue."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from hpcsft.errors import ClusterError

TIMEOUT_S = 30
TERMINAL = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
)

OPTIONS_OF_USERS = ("SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_")
"""Variables by which people change what the clients print for them; not for us."""
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


def read_queue() -> str:
    """All jobs of this user that Slurm still remembers, with a single squeue: text for `parse_queue`.

    ClusterError if Slurm does not answer.
    """
    fields = "%F|%K|%T|%M|%l|%S|%e|%N|%r"
    return run_client("squeue", "--noheader", "--me", "--array", "--states=all", f"--format={fields}")


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
        job_id, _, index = task.partition("_")
        if index and not index.isdigit():
            continue  # tasks of an array that never started
        number = int(index or 0)
        latest[job_id, number] = QueueEntry(job_id, number, state.split()[0], "", elapsed, limit, start, nodes, end)
    return list(latest.values())


class JobFacts(NamedTuple):
    """One job, or one task of an array, as `scontrol show job` shows it."""

    state: str
    preempted: bool
    """Has Slurm told it to leave for another job?"""
    end_time: datetime | None
    """When its time limit ends it; in local time, without a zone."""
    used_up: bool
    """Has it run for as long as its time limit allows?"""
    restarts: int
    """How often Slurm has put it back into the queue."""

    @property
    def running(self) -> bool:
        """Is it running, and nothing decided about its end?"""
        return self.state == "RUNNING"

    def remaining_s(self) -> float | None:
        """Seconds until its time limit ends it; None if it has none."""
        return (self.end_time - datetime.now()).total_seconds() if self.end_time else None


def query_job(job_id: str) -> JobFacts | None:
    """Facts about a job; None if Slurm has forgotten it. ClusterError if Slurm does not answer."""
    output = run_client("scontrol", "show", "job", "-o", job_id, ignore=("Invalid job id",))
    return parse_job(output) if output.strip() else None


def parse_job(output: str) -> JobFacts:
    """The line of `scontrol show job -o`."""
    fields = dict(re.findall(r"(\w+)=(\S*)", output))
    run, limit = duration_s(fields.get("RunTime", "")), duration_s(fields.get("TimeLimit", ""))
    return JobFacts(
        state=fields.get("JobState", "UNKNOWN"),
        preempted=_time(fields.get("PreemptTime", "")) is not None,
        end_time=_time(fields.get("EndTime", "")),
        used_up=run is not None and limit is not None and run >= limit - 1,
        restarts=int(fields.get("Restarts") or 0),
    )


def any_node_down(nodes: str) -> bool:
    """Does Slurm call any of these nodes (a list as in SLURM_JOB_NODELIST) down? False if it does not answer."""
    try:
        states = run_client("sinfo", "--noheader", "--Node", f"--nodes={nodes}", "--format=%T").lower()
    except ClusterError:
        return False
    return any(sign in states for sign in ("down", "drain", "fail", "unknown", "*"))  # *: it does not respond


def past_states(job_id: str) -> list[str]:
    """How each earlier attempt of a job ended, the oldest first; empty on a cluster that keeps no accounts."""
    try:
        output = run_client("sacct", "-n", "-X", "-D", "-P", "-j", job_id, "-o", "State")
    except ClusterError:
        return []
    return [line.split()[0] for line in output.splitlines() if line.strip()]


def cancel_jobs(job_ids: Sequence[str]) -> None:
    """Cancel jobs and arrays; ids that are gone already are no error."""
    if job_ids:
        run_client("scancel", "--quiet", *job_ids, ignore=("Invalid job id", "already completing", "already completed"))


def requeue_job(job_id: str) -> None:
    """Put a job back into the queue. ClusterError if Slurm does not answer or refuses."""
    run_client("scontrol", "requeue", job_id)


def signal_job(job_id: str, name: str) -> None:
    """Send a signal to the processes of a job's steps. ClusterError if Slurm does not answer."""
    run_client("scancel", f"--signal={name}", job_id)


def run_client(*command: str, ignore: Sequence[str] = ()) -> str:
    """What a client command of Slurm prints; ClusterError if it fails for a reason that `ignore` does not name."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OPTIONS_OF_USERS)}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, env={**kept, "SLURM_TIME_FORMAT": "standard"}
        )
    except subprocess.TimeoutExpired:
        message = f"{command[0]} does not answer within {TIMEOUT_S} s"
        raise ClusterError(message, "try again when Slurm answers") from None
    except OSError as error:
        message = f"{command[0]} does not answer: {error.strerror}"
        raise ClusterError(message, "is this a node of the cluster?") from None
    if done.returncode and not any(reason in done.stderr for reason in ignore):
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise ClusterError(f"{command[0]} failed: {reason[0]}", "try again when Slurm answers")
    return done.stdout


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # Unknown, None, N/A
        return None


def duration_s(text: str) -> int | None:
    """Slurm's [DAYS-][[HOURS:]MINUTES:]SECONDS in seconds; None for UNLIMITED, INVALID and the like."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)", text)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def duration_text(seconds: int) -> str:
    """Seconds as squeue writes them.

    >>> duration_text(93_784), duration_text(3_725), duration_text(62)
    ('1-02:03:04', '1:02:05', '1:02')
    """
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}-{hours:02d}:{minutes:02d}:{seconds:02d}"
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
