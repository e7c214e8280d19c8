"""provenance/STAGE/JOBID_RESTART.json: on what one attempt ran, written by its rank 0 as it starts."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from hpcsft.attempt.identity import TaskIdentity
from hpcsft.errors import ClusterError
from hpcsft.provenance.software import installed, machine, packages, python, torch_build
from hpcsft.records import now, write_json
from hpcsft.rundir import RunDir
from hpcsft.slurm_client import run_client

PATIENCE_S = 2.0
"""So long a stage waits for its record; a Slurm that is slower than that writes it, or not, while the stage goes on."""

JOB_FIELDS = (
    "JobId",
    "ArrayJobId",
    "ArrayTaskId",
    "UserId",
    "Account",
    "QOS",
    "Partition",
    "Reservation",
    "Features",
    "NodeList",
    "ExcNodeList",
    "NumNodes",
    "NumCPUs",
    "NumTasks",
    "TRES",
    "ReqTRES",
    "AllocTRES",
    "TresPerNode",
    "TimeLimit",
    "SubmitTime",
    "EligibleTime",
    "StartTime",
    "EndTime",
    "Restarts",
    "Requeue",
)
"""What is kept of `scontrol show job`; what a version of Slurm does not tell is left out."""

ENDED_FIELDS = (*JOB_FIELDS, "JobState", "Reason", "ExitCode", "RunTime")
"""The same of a job that has ended."""


NOTHING = ("", "(null)", "Unknown", "N/A", "None")


def record_attempt(run: RunDir, stage: str, index: int, task: TaskIdentity) -> None:
    """Write the record of the attempt that starts now. Never raises, and never takes longer than PATIENCE_S."""
    in_time(_write, run, stage, index, task)


def in_time(work: Callable[..., None], *arguments: object) -> None:
    """Do `work` in a thread, and go on without it after PATIENCE_S."""
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)


def _write(run: RunDir, stage: str, index: int, task: TaskIdentity) -> None:
    with contextlib.suppress(OSError, ValueError):  # no record is worth a failure
        file = run.attempt_record(stage, task.job_id, task.restart)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(file, attempt_facts(stage, index, task))


def attempt_facts(stage: str, index: int, task: TaskIdentity) -> dict[str, Any]:
    """Hosts, versions, machine, and Slurm's own record of the job; None for what is not known."""
    in_slurm = task.token.in_slurm
    return {
        "time": now(),
        "stage": stage,
        "index": index,
        "job_id": task.job_id,
        "restart": task.restart,
        "world_size": task.world_size,
        "host": socket.gethostname(),
        "nodes": node_names(os.environ.get("SLURM_JOB_NODELIST", "")) if in_slurm else [socket.gethostname()],
        "slurm": next(iter(job_records(os.environ.get("SLURM_JOB_ID", ""), JOB_FIELDS)), None) if in_slurm else None,
        "python": python(),
        "packages": packages(installed()),
        "torch": torch_build(),
        "machine": machine(),
    }


def node_names(nodes: str) -> list[str]:
    """The nodes of a list such as n[1-4], each by its name; the list itself if scontrol does not tell."""
    try:
        return run_client("scontrol", "show", "hostnames", nodes).split()
    except ClusterError:
        return [nodes]


def job_records(job_id: str, fields: Sequence[str]) -> list[dict[str, str]]:
    """`fields` of a job, or of each task of an array, as Slurm knows them now; [] if it does not answer."""
    try:
        return parse_jobs(run_client("scontrol", "show", "job", "-o", job_id), fields)
    except ClusterError:
        return []


def parse_jobs(output: str, fields: Sequence[str]) -> list[dict[str, str]]:
    """`fields` of each line of `scontrol show job -o`, without those that say nothing."""
    rows = (dict(re.findall(r"(?:^|(?<=\s))([\w:/]+)=(\S*)", line)) for line in output.splitlines() if line.strip())
    return [{name: row[name] for name in fields if row.get(name, "") not in NOTHING} for row in rows]
