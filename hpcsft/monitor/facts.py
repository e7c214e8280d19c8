"""What the state of a run is computed from."""

from __future__ import annotations

from typing import Any, Literal

from hpcsft.plan import Plan
from hpcsft.records import Record, StageStatus, SubmittedStage
from hpcsft.slurm_client import QueueEntry

State = Literal["pending", "running", "waiting", "done", "failed", "cancelled", "unsubmitted"]
"""waiting: for a person, who has to give something; pending: for the queue, or for another stage."""


class Facts(Record):
    """Everything that the state of a run is computed from."""

    run_dir: str
    plan: Plan
    submitted: dict[str, SubmittedStage]
    statuses: list[StageStatus]
    queue: list[QueueEntry] | None
    """None when Slurm was not asked or did not answer."""
    driver_alive: bool | None
    """For the local cluster: does the driver still run? None for Slurm."""
    cancelled: bool
    hands_off: list[str] = []
    """Job ids of stages that were started by hand on this machine and run no more."""
    train: dict[str, Any]
    launcher_logs: dict[str, str] = {}
    """Stage -> what the batch script and submitit printed, for a job that died before it had a log of its own."""
    problem: str | None = None
    """Why the queue is not known, if it should be."""
