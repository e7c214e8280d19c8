"""Run directories and attempts for tests that need no stage to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcsft.attempt.fence import Fence, Token
from hpcsft.attempt.journal import Journal
from hpcsft.plan import make_plan
from hpcsft.records import Submission, SubmittedStage, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from tests.conftest import make_spec_values

NO_SLURM = "/nowhere"
"""A PATH without Slurm's clients: nobody answers."""


def empty_run(folder: Path, **retries: int) -> RunDir:
    """A run of five stages with two tasks that generate, its inputs nowhere; `retries` as in cluster.retries."""
    values = make_spec_values(Path("/models/tiny"), Path("/data/a.jsonl"), Path("/data/p.json"), folder / "runs")
    values["cluster"]["retries"] = retries
    spec = parse_spec(values)
    run = RunDir(spec.run_path)
    run.create()
    write_json(run.spec, spec)
    write_json(run.plan, make_plan(spec))
    return run


def token(job_id: str = "44", restart: int = 0) -> Token:
    return Token(job_id=job_id, restart=restart)


def fence(run: RunDir, job_id: str = "44", restart: int = 0, stage: str = "train", index: int = 0) -> Fence:
    return Fence(run, stage, index, 2 if stage == "generate" else 1, token(job_id, restart))


def journal(run: RunDir, job_id: str = "44", restart: int = 0, stage: str = "train") -> Journal:
    return Journal(run, stage, 0, 1, token(job_id, restart))


def submitted(run: RunDir, *jobs: tuple[str, str]) -> None:
    """Let (stage, job id) have been submitted, the oldest first."""
    rows = [SubmittedStage(stage=stage, job_id=job, depends_on=[], tasks=1, submitted="") for stage, job in jobs]
    run.write_submission(Submission(cluster="slurm", host="login", jobs=rows))


def events(run: RunDir, stage: str = "train") -> list[str]:
    return [row["event"] for row in journal(run, stage=stage).rows()]


def end_of(run: RunDir, stage: str = "train") -> dict[str, Any]:
    """The newest row `end`."""
    return dict([row for row in journal(run, stage=stage).rows() if row["event"] == "end"][-1])
