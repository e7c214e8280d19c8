"""Folders of runs that hold just enough to be found: made in a moment, by the hundred if need be."""

from __future__ import annotations

import os
from pathlib import Path

from hpcsft.records import Submission, SubmittedStage, write_json
from hpcsft.rundir import RunDir

SUBMITTED_S = 1_700_000_000


def bare_run(folder: Path, name: str, jobs: dict[str, str] | None = None, age: int = 0) -> RunDir:
    """A run that has been submitted as `jobs` (stage -> job id); the smaller its `age`, the newer it is."""
    run = RunDir(folder / name)
    run.path.mkdir(parents=True)
    for file in (run.spec, run.plan):
        file.write_text("{}")
    stages = [
        SubmittedStage(stage=stage, job_id=job_id, depends_on=[], tasks=1, submitted="")
        for stage, job_id in (jobs or {}).items()
    ]
    write_json(run.submission, Submission(cluster="slurm", host="login", jobs=stages))
    os.utime(run.submission, (SUBMITTED_S - age, SUBMITTED_S - age))
    return run
