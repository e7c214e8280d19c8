"""What the state of a run is computed from."""

from __future__ import annotations

from typing import Any, Literal

from hpcsft.plan import Plan
from hpcsft.records import Record, StageStatus, SubmittedStage
from hpcsft.slurm_queue import QueueEntry

State = Literal["pending", "running", "waiting", "done", "failed", "cancelled", "unsubmitted"]
"""waiting: for a person, who has to give something; pending: for the queue, or for another stage."""

Task = tuple[str, int]
"""Stage and index."""


class Log(Record):
    """The end of one log."""

    path: str
    """Relative to the run directory."""
    lines: list[str]
    lines_before: int = 0
    """So many lines come before them."""


class Judged(Record):
    """How far the evaluation of one checkpoint or other model is."""

    name: str
    answers: int
    """Answers that are made."""
    verdicts: list[tuple[int, float]]
    """Row of the prompt and utility of the model's answer (0 to 1), one for each verdict of the newest judge."""
    final: dict[str, Any] | None = None
    """win_rate, interval and n_total of the report, when there is one."""


class Details(Record):
    """What only the screen of a single run shows."""

    journals: dict[Task, list[dict[str, Any]]] = {}
    """The rows of attempts/."""
    retries: dict[str, int] = {}
    """cluster.retries of the spec."""
    heartbeats: list[dict[str, Any]] = []
    judged: list[Judged] = []
    logs: dict[Task, list[Log]] = {}
    """Of tasks that have not said that they run or are done: where the reason may stand, the likeliest first."""


class Facts(Record):
    """Everything that the state of a run is computed from."""

    run_dir: str
    plan: Plan
    in_slurm: bool = False
    """Was it submitted to Slurm?"""
    submitted: dict[str, SubmittedStage]
    statuses: list[StageStatus]
    queue: list[QueueEntry] | None
    """This run's jobs; None when Slurm was not asked or has never answered."""
    driver_alive: bool | None
    """For the local cluster: does the driver still run? None for Slurm."""
    cancelled: bool
    hands_off: list[str] = []
    """Job ids of stages that were started by hand on this machine and run no more."""
    train: dict[str, Any]
    launcher_logs: dict[str, str] = {}
    """Stage -> what the batch script and submitit printed, for a job that died before it had a log of its own."""
    as_of: float | None = None
    """When Slurm said what stands in `queue`, in seconds since the epoch; None where it is not asked."""
    problem: str | None = None
    """Why there is nothing newer."""
    unseen: str | None = None
    """Why Slurm here can tell nothing of this run: another cluster's, or somebody else's on one that hides them."""
    owner: tuple[str | None, str | None] = (None, None)
    """The cluster's name, and who has submitted."""
    now: float = 0.0
    """When the files were read, in seconds since the epoch."""
    details: Details | None = None
