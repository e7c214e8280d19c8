"""What Slurm's clients are asked, on login and on compute nodes: one job and its past, cancel, requeue, signal."""

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

OPTIONS_OF_USERS = ("SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SLURM_CLUSTERS")
"""Variables by which people change what the clients print for them, and which cluster they ask; not for us."""


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
    partition: str = ""
    """Or several, separated by commas."""
    num_nodes: int = 1
    """It needs so many at least."""
    excluded: str = ""
    """The nodes on which it must not run, as a host list such as n[1-2]; empty for none."""
    constraint: str = ""
    """The features that its nodes need, such as a100&ib; empty for none."""

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
        partition=fields.get("Partition", ""),
        num_nodes=int(fields.get("NumNodes", "1").partition("-")[0]),
        excluded=fields.get("ExcNodeList", "").replace("(null)", ""),
        constraint=fields.get("Features", "").replace("(null)", ""),
    )


def told_end_s() -> float | None:
    """When its time limit ends this job, in seconds since the epoch, as its environment tells.

    For places without Slurm's clients, such as containers. Newer versions of Slurm set the variable, for others the
    batch script of a container does; who raises the limit later changes nothing here.
    """
    told = os.environ.get("SLURM_JOB_END_TIME", "")
    return float(told) if told.isdigit() else None


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


def partition_nodes(partition: str, constraint: str = "") -> list[str]:
    """The names of all nodes of a partition, or of several separated by commas. ClusterError if nobody answers.

    Those only that have all features of a `constraint` such as a100&ib; one that says more than that is not looked at.
    """
    output = run_client("sinfo", "--noheader", "--Node", f"--partition={partition}", "--format=%N|%f")
    wanted = set(re.split("[&,]", constraint)) if re.fullmatch(r"[\w.:&,-]+", constraint) else set()
    rows = (line.strip().partition("|") for line in output.splitlines() if line.strip())
    return list(dict.fromkeys(name for name, _, features in rows if wanted <= set(features.split(","))))


def host_names(host_list: str) -> list[str]:
    """The single names of a host list such as n[1-2],n7. ClusterError if nobody answers."""
    return run_client("scontrol", "show", "hostnames", host_list).split() if host_list else []


def exclude_nodes(job_id: str, nodes: Sequence[str]) -> None:
    """Let a pending job run on none of `nodes`, instead of those excluded so far. ClusterError if Slurm refuses."""
    run_client("scontrol", "update", f"JobId={job_id}", f"ExcNodeList={','.join(nodes)}")


def signal_job(job_id: str, name: str) -> None:
    """Send a signal to the processes of a job's steps. ClusterError if Slurm does not answer."""
    run_client("scancel", f"--signal={name}", job_id)


def run_client(*command: str, ignore: Sequence[str] = (), timeout_s: float = TIMEOUT_S) -> str:
    """What a client command of Slurm prints; ClusterError if it fails for a reason that `ignore` does not name."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OPTIONS_OF_USERS)}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",  # administrators write reasons in any encoding
            timeout=timeout_s,
            env={**kept, "SLURM_TIME_FORMAT": "standard"},
        )
    except subprocess.TimeoutExpired:
        message = f"{command[0]} does not answer within {timeout_s:g} s"
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
