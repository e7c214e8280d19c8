"""Submitting again what a run still needs, with other resources if they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

from hpcsft import slurm_client
from hpcsft.attempt.journal import all_rows
from hpcsft.cluster.chain import submit_stages
from hpcsft.cluster.intent import settle
from hpcsft.cluster.lock import SubmissionLock
from hpcsft.cluster.submit import cluster_kind
from hpcsft.errors import Problem, SpecError
from hpcsft.estimate import with_measured_lead
from hpcsft.hub.fetch import keep_inputs
from hpcsft.owner import refuse_elsewhere
from hpcsft.plan import Plan, make_plan
from hpcsft.records import SubmittedStage, read_json, read_jsonl
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec, load_spec
from hpcsft.storage import storage_errors
from hpcsft.submitted import refuse_if_edited, write_settings
from hpcsft.train.deepspeed_config import why_impossible

CHANGEABLE = ("cluster.", "evaluate.checks.", "evaluate.judge.", "notify.", "notify=")
"""What may be another in the same experiment: no answer depends on it, and every verdict knows its judge."""


def resume_run(
    run: RunDir, stages: Sequence[str], overrides: Sequence[str] = ()
) -> tuple[list[SubmittedStage], list[str]]:
    """Submit `stages` once more; the others are done. Returns their jobs, and what the plan warns of.

    `overrides` may change CHANGEABLE.

    What is left of their earlier jobs is cancelled first, so that no two attempts meet. StageError if spec.json or
    plan.json was edited by hand.
    """
    with storage_errors(f"{run.path} cannot be resumed"):
        run.for_writing()
        refuse_elsewhere(run, run.read_submission())
        with SubmissionLock(run) as lock:
            refuse_if_edited(run)
            return _resume(run, stages, overrides, lock)


def _resume(
    run: RunDir, stages: Sequence[str], overrides: Sequence[str], lock: SubmissionLock
) -> tuple[list[SubmittedStage], list[str]]:
    spec = ExperimentSpec.model_validate(read_json(run.spec))
    plan = Plan.model_validate(read_json(run.plan))
    if overrides:
        spec, plan = _change(run, plan, stages, overrides)
    keep_inputs(spec, run)
    plan = with_measured_lead(plan, all_rows(run, "train"), list(read_jsonl(run.metrics)))
    submission = settle(run)
    write_settings(run, spec, plan)
    if submission and submission.cluster == "slurm":
        slurm_client.cancel_jobs([job.job_id for job in submission.jobs if job.stage in stages])
    run.cancelled.unlink(missing_ok=True)
    done = set(plan.stage_names) - set(stages)
    return submit_stages(spec, plan, run, stages, cluster_kind(spec), lock, done), plan.warnings


def _change(run: RunDir, plan: Plan, stages: Sequence[str], overrides: Sequence[str]) -> tuple[ExperimentSpec, Plan]:
    """The run's spec and plan with other resources for `stages`."""
    strange = [override for override in overrides if not override.startswith(CHANGEABLE)]
    if strange:
        hint = "a run keeps its experiment; submit a new one for another"
        what = "resume changes cluster.*, evaluate.checks.* and evaluate.judge.*, and notify only"
        raise SpecError("--set", [Problem("", f"--set {text}: {what}", hint) for text in strange])
    spec = load_spec(str(run.spec), overrides)
    new = make_plan(spec)
    merged = new.model_copy(
        update={"digest": plan.digest, "stages": [new.stage(s.name) if s.name in stages else s for s in plan.stages]}
    )
    if merged.stage("train").world_size != plan.stage("train").world_size and (reason := why_impossible(spec)):
        raise SpecError("--set", [Problem("", f"training cannot go on with another number of ranks: {reason}")])
    for stage in merged.stages:
        if stage.tasks != plan.stage(stage.name).tasks:  # its parts are others now, and none of them is done
            for file in run.status.glob(f"{stage.name}*.json"):
                file.unlink()
    return spec, merged
