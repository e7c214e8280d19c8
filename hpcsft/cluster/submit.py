"""From a plan to a run whose jobs are in the queue, or in the hands of the driver on this machine; and its end."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hpcsft import slurm_client
from hpcsft.cluster import local, slurm, snapshot
from hpcsft.cluster.chain import check_order, submit_stages
from hpcsft.cluster.held import done_stages, jobs_in_queue
from hpcsft.cluster.intent import settle, settle_run
from hpcsft.cluster.lock import SubmissionLock
from hpcsft.errors import HpcsftError, Problem, SpecError, SubmissionError
from hpcsft.hub.fetch import fetch_inputs, write_fetched
from hpcsft.owner import refuse_elsewhere, this_cluster_or_none
from hpcsft.plan import Plan
from hpcsft.provenance.submitted import collect_provenance
from hpcsft.records import SubmittedStage, now, write_json, write_text
from hpcsft.rundir import RunDir, make_private
from hpcsft.runs_dirs import remember_runs_dir
from hpcsft.secrets import scrubbed_values, scrubbed_words
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.data import TEMPLATES
from hpcsft.storage import storage_error, storage_errors
from hpcsft.submitted import refuse_if_edited, write_settings


def cluster_kind(spec: ExperimentSpec) -> Literal["slurm", "local"]:
    """slurm or local. HpcsftError if the spec insists on a Slurm that is not here."""
    if spec.cluster.kind == "local":
        return "local"
    if slurm.slurm_here():
        return "slurm"
    if spec.cluster.kind == "auto" and spec.cluster.train.nodes > 1:
        message = f"there is no sbatch here, and this is one machine: 1; given {spec.cluster.train.nodes}"
        raise SpecError(spec.name, [Problem("cluster.train.nodes", message, "submit on a login node of the cluster")])
    if spec.cluster.kind == "slurm":
        raise HpcsftError("cluster.kind is slurm, but there is no sbatch here", "submit on a login node of the cluster")
    return "local"


def submit_experiment(
    spec: ExperimentSpec, plan: Plan, stages: Sequence[str] | None, argv: list[str]
) -> tuple[RunDir, list[SubmittedStage], bool]:
    """Submit `stages` (None: all) of an experiment; returns the run, its jobs, and whether anything was submitted now.

    Stages of the same spec that have been submitted before are not submitted again. One command at a time does this to
    a run. An error leaves nothing of a new run, but for the UnclearError of `submit_stages`.
    """
    wanted = check_stages(plan, stages)
    run = RunDir(spec.run_path)
    with storage_errors(f"{run.path} cannot be submitted"):
        with contextlib.suppress(FileNotFoundError):
            run.for_writing()
        with SubmissionLock(run) as lock:
            return _submit(spec, plan, run, wanted, argv, lock)


def _submit(
    spec: ExperimentSpec, plan: Plan, run: RunDir, wanted: Sequence[str], argv: list[str], lock: SubmissionLock
) -> tuple[RunDir, list[SubmittedStage], bool]:
    submission = settle(run)
    known = submission.latest() if submission else {}
    missing = [name for name in wanted if name not in known]
    check_order(plan, missing, known)
    if not missing:
        return run, list(known.values()), False
    new = not run.spec.exists()
    try:
        if new:
            prepare_run(spec, plan, run, argv)
        refuse_if_edited(run)
        jobs = submit_stages(spec, plan, run, missing, cluster_kind(spec), lock, done_stages(plan, run))
    except (HpcsftError, OSError):
        if new and lock.is_held():  # else it is in the hands of another command
            discard_run(run)
        raise
    return run, [*known.values(), *jobs], True


def submission_text(run_dir: str, jobs: Sequence[SubmittedStage], submitted: bool, warnings: Sequence[str]) -> str:
    """What submit tells: where the run is, its jobs, the lines of `warnings`, and what to do next."""
    lines = [f"run directory  {run_dir}" + ("" if submitted else "  (this spec has been submitted before)")]
    lines += [
        f"{job.stage:<14} job {job.job_id}" + (f", array of {job.tasks}" if job.tasks > 1 else "") for job in jobs
    ]
    verbs = {
        "monitor": "see how it goes",
        "logs": "read a log",
        "cancel": "stop it",
        "resume": "submit what failed again",
    }
    lines += [warning.replace("RUN_DIR", run_dir) for warning in warnings]
    return "\n".join([*lines, *(f"{what:<25} python launch/{verb}.py {run_dir}" for verb, what in verbs.items())])


def check_stages(plan: Plan, stages: Sequence[str] | None) -> list[str]:
    """The stages that are wanted, in the order of the plan; SpecError names those that it does not have."""
    unknown = [name for name in stages or [] if name not in plan.stage_names]
    if unknown:
        hint = f"the stages of this spec are {', '.join(plan.stage_names)}"
        raise SpecError("--stages", [Problem("--stages", f"no stage '{name}'", hint) for name in unknown])
    return [name for name in plan.stage_names if stages is None or name in stages]


def prepare_run(spec: ExperimentSpec, plan: Plan, run: RunDir, argv: list[str]) -> None:
    """Fill a new run directory: code, plan, provenance, and the spec last, because it makes the directory a run.

    Models and data sets of the hub are fetched first.
    """
    fetched = fetch_inputs(spec)
    run.create()
    write_fetched(run, fetched)
    snapshot.copy_code(run.code)
    make_private(run.code)
    if spec.data.template not in TEMPLATES:  # a file that is edited while jobs wait changes nothing
        write_text(run.template, Path(spec.data.template).read_text(encoding="utf-8"))
    _write_provenance(spec, run, argv)
    write_settings(run, spec, plan)
    remember_runs_dir(run.path.parent)


def _write_provenance(spec: ExperimentSpec, run: RunDir, argv: list[str]) -> None:
    cluster = this_cluster_or_none() if spec.cluster.kind != "local" and slurm.slurm_here() else None
    document = collect_provenance(scrubbed_words(argv), snapshot.source_root(), cluster)
    text = json.dumps(scrubbed_values(document), indent=2, ensure_ascii=False) + "\n"
    write_text(run.provenance, spec.notify.without_secret(text) if spec.notify else text)


def discard_run(run: RunDir) -> None:
    """Remove a run directory for which nothing was submitted, so that a refused spec leaves nothing behind."""
    submission = None
    with contextlib.suppress(OSError):
        submission = run.read_submission()
    if submission is None or not (submission.jobs or submission.intent):
        shutil.rmtree(run.path, ignore_errors=True)


def cancel_run(run: RunDir) -> list[str]:
    """Cancel all jobs of a run and return the ids of those that there were. The marker is written first: a cancelled
    run stays cancelled.

    Where it cannot be written the jobs are cancelled all the same, and the error is raised after that.
    """
    run.for_writing()
    with storage_errors(f"{run.path} cannot be cancelled"):
        return _cancel(run)


def _cancel(run: RunDir) -> list[str]:
    refuse_elsewhere(run, run.read_submission())
    unmarked: HpcsftError | None = None
    try:
        write_json(run.cancelled, {"time": now(), "host": socket.gethostname()})
    except OSError as error:
        unmarked = storage_error(error, f"{run.path} could not be marked as cancelled, but its jobs were cancelled")
    with contextlib.suppress(SubmissionError):  # somebody submits it now, will see the marker, and take all back
        settle_run(run)
    submission = run.read_submission()
    if submission is None:
        return []
    # If Slurm does not answer now, the marker stays: cancelling again is harmless.
    if submission.cluster == "slurm":
        ids = jobs_in_queue(run)
        slurm_client.cancel_jobs(ids)
    else:
        ids = list(dict.fromkeys(job.job_id for job in submission.jobs))
        for job_id in ids:
            local.stop_driver(run, job_id, submission.host, submission.path)
    if unmarked:
        raise unmarked
    return ids
