"""Logs and last words of attempts, as a job would leave them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from hpcsft.plan import Plan
from hpcsft.records import StageStatus, Submission, SubmittedStage, read_json, write_json
from hpcsft.rundir import RunDir

JOBS = {"preprocess": "11", "train": "12", "generate": "13", "judge": "14", "report": "15"}


def submit(run: RunDir, cluster: str = "slurm", submitted: str = "2026-01-01", **jobs: str) -> None:
    """Say that the stages were submitted as the jobs of JOBS, or as others."""
    stages = [
        SubmittedStage(stage=stage, job_id=job_id, depends_on=[], tasks=1, submitted=submitted)
        for stage, job_id in {**JOBS, **jobs}.items()
    ]
    run.write_submission(Submission(cluster=cluster, host=socket.gethostname(), jobs=stages))


def log(run: RunDir, attempt: str, rank: int = 0, out: str = "", err: str = "", began_s: int = 1) -> Path:
    """The logs of one rank of an attempt, such as train/12_0, which began at `began_s`."""
    folder = run.logs / attempt
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{rank}.out").write_text(out)
    (folder / f"{rank}.err").write_text(err)
    os.utime(folder, (began_s, began_s))
    return folder


def say(run: RunDir, attempt: str, state: str, rank: int = 0, updated: str = "2026-01-01T00:00:00+00:00") -> None:
    """Let the attempt be the last that spoke of its task, and `state` what it said."""
    stage, name = attempt.split("/")
    job_id, _, restart = name.rpartition("_")
    index = int(job_id.partition("_")[2] or 0)
    log = f"logs/{attempt}/{rank}.err"
    facts = {"attempt": 1, "job_id": job_id, "restart": int(restart), "log": log, "updated": updated}
    tasks = Plan.model_validate(read_json(run.plan)).stage(stage).tasks
    write_json(run.status_file(stage, index, tasks), StageStatus(stage=stage, index=index, state=state, **facts))
