"""From a plan to jobs in the queue, or to the driver on this machine; and back, when a later stage is refused."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Collection, Sequence
from pathlib import Path

from hpcsft import slurm_client
from hpcsft.cluster import local, slurm, snapshot
from hpcsft.cluster.held import done_stages
from hpcsft.errors import HpcsftError, Problem, SpecError, SubmissionError
from hpcsft.plan import Plan
from hpcsft.records import Submission, SubmittedStage, now, write_json, write_text
from hpcsft.rundir import RunDir
from hpcsft.runs_dirs import remember_runs_dir
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.data import TEMPLATES


def cluster_kind(spec: ExperimentSpec) -> str:
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

    Stages of the same spec that have been submitted before are not submitted again.
    """
    wanted = check_stages(plan, stages)
    run = RunDir(spec.run_path)
    submission = run.read_submission()
    known = submission.latest() if submission else {}
    missing = [name for name in wanted if name not in known]
    _check_order(plan, missing, known)
    new = not run.spec.exists()
    if new:
        prepare_run(spec, plan, run, argv)
    try:
        jobs = submit_stages(spec, plan, run, missing, done=done_stages(plan, run)) if missing else []
    except HpcsftError:
        if new:
            discard_run(run)
        raise
    return run, [*known.values(), *jobs], bool(jobs)


def submission_text(run_dir: str, jobs: Sequence[SubmittedStage], submitted: bool, warnings: Sequence[str]) -> str:
    """What submit tells: where the run is, its jobs, what the plan warns of, and what to do next."""
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
    lines += [f"warning: {warning.replace('RUN_DIR', run_dir)}" for warning in warnings]
    return "\n".join([*lines, *(f"{what:<25} python launch/{verb}.py {run_dir}" for verb, what in verbs.items())])


def check_stages(plan: Plan, stages: Sequence[str] | None) -> list[str]:
    """The stages that are wanted, in the order of the plan; SpecError names those that it does not have."""
    unknown = [name for name in stages or [] if name not in plan.stage_names]
    if unknown:
        hint = f"the stages of this spec are {', '.join(plan.stage_names)}"
        raise SpecError("--stages", [Problem("--stages", f"no stage '{name}'", hint) for name in unknown])
    return [name for name in plan.stage_names if stages is None or name in stages]


def prepare_run(spec: ExperimentSpec, plan: Plan, run: RunDir, argv: list[str]) -> None:
    """Fill a new run directory: code, plan, provenance, and the spec last, because it makes the directory a run."""
    run.create()
    snapshot.copy_code(run.code)
    if spec.data.template not in TEMPLATES:  # a file that is edited while jobs wait changes nothing
        write_text(run.template, Path(spec.data.template).read_text(encoding="utf-8"))
    write_json(run.plan, plan)
    text = json.dumps(snapshot.collect_provenance(argv), indent=2, ensure_ascii=False) + "\n"
    write_text(run.provenance, spec.notify.without_secret(text) if spec.notify else text)
    write_json(run.spec, spec)
    remember_runs_dir(run.path.parent)


def submit_stages(
    spec: ExperimentSpec, plan: Plan, run: RunDir, stages: Sequence[str], done: Collection[str] = ()
) -> list[SubmittedStage]:
    """Submit `stages` of a prepared run and return what was submitted.

    A stage waits for its predecessors unless they are in `done`. Each job id is written down before the next job is
    submitted. If one is refused, those submitted before it are cancelled and the error is raised.
    """
    kind = cluster_kind(spec)
    submission = run.read_submission() or Submission(cluster=kind, host=socket.gethostname())
    if submission.cluster != kind:
        message = f"{run.path} was submitted to the {submission.cluster} cluster, this is the {kind} one"
        raise SubmissionError(message, "go to the machine that it was submitted from")
    _check_order(plan, stages, {job.stage for job in submission.jobs} | set(done))
    if kind == "local":
        return _submit_local(plan, run, stages, submission)
    return _submit_slurm(spec, plan, run, stages, submission, done)


def _check_order(plan: Plan, stages: Sequence[str], known: Collection[str]) -> None:
    for name in stages:
        for needed in plan.stage(name).depends_on:
            if needed not in stages and needed not in known:
                hint = f"add it: --stages {needed},{','.join(stages)}"
                raise SubmissionError(f"the stage {name} needs {needed}, which is neither done nor submitted", hint)


def _submit_local(plan: Plan, run: RunDir, stages: Sequence[str], submission: Submission) -> list[SubmittedStage]:
    job_id = local.start_driver(run, list(stages))
    jobs = [
        SubmittedStage(stage=name, job_id=job_id, depends_on=[], tasks=plan.stage(name).tasks, submitted=now())
        for name in stages
    ]
    run.write_submission(Submission(cluster="local", host=submission.host, jobs=[*submission.jobs, *jobs]))
    return jobs


def _submit_slurm(
    spec: ExperimentSpec,
    plan: Plan,
    run: RunDir,
    stages: Sequence[str],
    submission: Submission,
    done: Collection[str],
) -> list[SubmittedStage]:
    ids = {job.stage: job.job_id for job in submission.jobs}
    jobs: list[SubmittedStage] = []
    try:
        for name in stages:
            stage = plan.stage(name)
            after = [ids[needed] for needed in stage.depends_on if needed not in done]
            ids[name] = slurm.submit_stage(spec, run, stage, after)
            job = SubmittedStage(stage=name, job_id=ids[name], depends_on=after, tasks=stage.tasks, submitted=now())
            jobs.append(job)
            run.write_submission(Submission(cluster="slurm", host=submission.host, jobs=[*submission.jobs, *jobs]))
    except HpcsftError as error:
        if jobs:
            slurm_client.cancel_jobs([job.job_id for job in jobs])
            run.write_submission(submission)
            error.message += f" ({', '.join(job.stage for job in jobs)} had been submitted, and are cancelled again)"
        raise
    return jobs


def discard_run(run: RunDir) -> None:
    """Remove a run directory for which nothing was submitted, so that a refused spec leaves nothing behind."""
    submission = run.read_submission()
    if submission is None or not submission.jobs:
        shutil.rmtree(run.path, ignore_errors=True)


def cancel_run(run: RunDir) -> list[str]:
    """Cancel all jobs of a run and return their ids. The marker is written first: a cancelled run stays cancelled."""
    submission = run.read_submission()
    write_json(run.cancelled, {"time": now(), "host": socket.gethostname()})
    if submission is None:
        return []
    # If Slurm does not answer now, the marker stays: cancelling again is harmless.
    ids = list(dict.fromkeys(job.job_id for job in submission.jobs))
    if submission.cluster == "slurm":
        slurm_client.cancel_jobs(ids)
    else:
        for job_id in ids:
            local.stop_driver(run, job_id, submission.host)
    return ids
