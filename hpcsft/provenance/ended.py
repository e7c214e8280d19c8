"""provenance/jobs.json: how the jobs of a run ended, as Slurm's accounts tell, or what it still remembers."""

from __future__ import annotations

import contextlib

from hpcsft.errors import ClusterError
from hpcsft.provenance.attempt import ENDED_FIELDS, in_time, job_records
from hpcsft.records import now, write_json
from hpcsft.rundir import RunDir
from hpcsft.slurm_client import run_client

ACCOUNTED = (
    "JobID",
    "JobName",
    "State",
    "ExitCode",
    "Partition",
    "Account",
    "QOS",
    "Submit",
    "Eligible",
    "Start",
    "End",
    "Elapsed",
    "NodeList",
    "AllocTRES",
    "CPUTimeRAW",
    "ConsumedEnergyRaw",
)
"""What is asked of sacct, of every attempt of every task."""


def record_ended(run: RunDir) -> None:
    """Write down how the jobs that were submitted for `run` have ended so far. Never raises, and never takes long."""
    in_time(_write, run)


def _write(run: RunDir) -> None:
    with contextlib.suppress(OSError, ValueError):
        submission = run.read_submission()
        if submission is not None and submission.cluster == "slurm":
            ids = list(dict.fromkeys(job.job_id for job in submission.jobs))
            run.provenance_folder.mkdir(mode=0o700, exist_ok=True)
            write_json(run.ended_jobs, {"time": now(), **_told(ids)})


def _told(job_ids: list[str]) -> dict[str, object]:
    try:
        fields = ",".join(ACCOUNTED)
        output = run_client("sacct", "-n", "-X", "-D", "-P", "-j", ",".join(job_ids), "-o", fields)
        return {"source": "sacct", "jobs": parse_accounts(output)}
    except ClusterError:  # no accounts: what the controller still knows
        found = [record for job_id in job_ids for record in job_records(job_id, ENDED_FIELDS)]
        return {"source": "scontrol", "jobs": found}


def parse_accounts(output: str) -> list[dict[str, str]]:
    """The lines of sacct, fields that say nothing left out."""
    rows = [line.split("|") for line in output.splitlines() if line.count("|") == len(ACCOUNTED) - 1]
    return [{name: value for name, value in zip(ACCOUNTED, row, strict=True) if value} for row in rows]
