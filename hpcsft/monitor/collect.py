"""Reads what the state of a run is computed from. It only reads."""

from __future__ import annotations

import contextlib
from pathlib import Path
from socket import gethostname
from typing import Any

from hpcsft import slurm_client
from hpcsft.cluster import local
from hpcsft.errors import ClusterError
from hpcsft.monitor.facts import Facts
from hpcsft.plan import Plan
from hpcsft.records import BY_HAND, StageStatus, read_json, read_jsonl
from hpcsft.rundir import RunDir

TAIL_STEPS = 60
"""Steps whose losses are kept for the sparkline."""


def collect(run: RunDir, tolerant: bool = False) -> Facts:
    """Everything about `run`. Raises ClusterError when Slurm does not answer, unless `tolerant`: then facts.problem
    says so and the queue is None."""
    submission = run.read_submission()
    queue, driver_alive, problem = None, None, None
    if submission and submission.cluster == "slurm":
        try:
            queue = slurm_client.query_queue()
        except ClusterError as error:
            if not tolerant:
                raise
            problem = error.message
    elif submission and submission.jobs:
        driver_alive = local.driver_alive(run, submission.jobs[-1].job_id, submission.host)
    # The files are read after the queue: a task that ends in between is then seen as done, not as vanished.
    statuses = list(run.read_statuses())
    return Facts(
        run_dir=str(run.path),
        plan=Plan.model_validate(read_json(run.plan)),
        submitted=submission.latest() if submission else {},
        statuses=statuses,
        queue=queue,
        driver_alive=driver_alive,
        cancelled=run.cancelled.exists(),
        hands_off=hands_off(statuses),
        train=train_facts(run),
        launcher_logs=launcher_logs(run),
        problem=problem,
    )


def hands_off(statuses: list[StageStatus]) -> list[str]:
    """Job ids of what was started by hand on this machine, and whose process is gone."""
    here = [status.job_id for status in statuses if status.by_hand and status.host == gethostname()]
    return [job_id for job_id in here if not Path("/proc", job_id.removeprefix(BY_HAND)).exists()]


def launcher_logs(run: RunDir) -> dict[str, str]:
    """The newest of submitit's own error logs of each stage that says anything, relative to the run directory."""
    logs = sorted(run.submitit.glob("*/*_log.err"), key=lambda path: path.stat().st_mtime)
    return {path.parent.name: str(path.relative_to(run.path)) for path in logs if path.stat().st_size}


def train_facts(run: RunDir) -> dict[str, Any]:
    """The last step's metrics, the recent losses and the validation losses; empty before training."""
    rows = list(read_jsonl(run.metrics))
    validation = [{"checkpoint": row["checkpoint"], "loss": row["loss"]} for row in read_jsonl(run.validation)]
    if not rows and not validation:
        return {}
    facts: dict[str, Any] = dict(rows[-1]) if rows else {}
    facts["losses"] = [row["loss"] for row in rows[-TAIL_STEPS:] if row["loss"] is not None]
    facts["validation"] = validation
    with contextlib.suppress(OSError):
        facts["checkpoint"] = (run.checkpoints / "latest").read_text().strip()
    return facts
