"""Submitting again what a run still needs, with other resources if they are asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from hpcsft import slurm_client
from hpcsft.attempt.journal import all_rows
from hpcsft.cluster.chain import submit_stages
from hpcsft.cluster.held import jobs_in_queue
from hpcsft.cluster.intent import settle
from hpcsft.cluster.lock import SubmissionLock
from hpcsft.cluster.submit import cluster_kind
from hpcsft.errors import HpcsftError, Problem, SpecError, SubmissionError, UnclearError
from hpcsft.estimate import with_measured_lead
from hpcsft.hub.fetch import keep_inputs
from hpcsft.owner import refuse_elsewhere
from hpcsft.plan import Plan, make_plan
from hpcsft.records import SubmittedStage, read_json, read_jsonl, write_text
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec, load_spec, parse_spec
from hpcsft.storage import storage_errors
from hpcsft.submitted import in_known_fields, refuse_if_edited, write_settings
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
    cancelled = _marker(run)
    kept = read_json(run.spec)
    loaded = spec = _read(run, kept)
    before = plan = Plan.model_validate(read_json(run.plan))
    if overrides:
        spec, plan = _change(run, plan, stages, overrides)
    document, unknown = in_known_fields(kept, loaded.model_dump(mode="json"), spec.model_dump(mode="json"))
    if unknown:
        hint = "leave it out, or submit the spec anew"
        what = f"{run.code} is of an older version that does not know it"
        raise SpecError("--set", [Problem(field, what, hint) for field in unknown])
    for stage in plan.stages:
        if stage.tasks != before.stage(stage.name).tasks:  # its parts are others now, and none of them is done
            for file in run.status.glob(f"{stage.name}*.json"):
                file.unlink()
    keep_inputs(spec, run)
    plan = with_measured_lead(plan, all_rows(run, "train"), list(read_jsonl(run.metrics)))
    submission = settle(run)
    if _marker(run) != cancelled:  # to fetch and to settle takes time
        hint = f"python launch/resume.py {run.path} submits it again"
        raise SubmissionError(f"{run.path} was cancelled while it was being resumed", hint)
    write_settings(run, document, plan)  # jobs read it with the run's own code
    if submission and submission.cluster == "slurm":
        slurm_client.cancel_jobs(jobs_in_queue(run, stages))
    run.cancelled.unlink(missing_ok=True)
    done = set(plan.stage_names) - set(stages)
    try:
        return submit_stages(spec, plan, run, stages, cluster_kind(spec), lock, done), plan.warnings
    except UnclearError:
        raise
    except (HpcsftError, OSError):  # what was refused is no part of the run
        write_settings(run, kept, before)
        if cancelled is not None:
            write_text(run.cancelled, cancelled)
        raise


def _read(run: RunDir, document: dict[str, Any]) -> ExperimentSpec:
    """SpecError if it is of an older version, and is not taken any more."""
    try:
        return parse_spec(document)
    except SpecError as error:
        hint = f"the version that made {run.path} can resume it; here the spec has to be mended and submitted anew"
        problems = [dataclasses.replace(problem, hint=problem.hint or hint) for problem in error.problems]
        raise SpecError(str(run.spec), problems) from None


def _marker(run: RunDir) -> str | None:
    """What the last cancel has left; None if there is nothing."""
    try:
        return run.cancelled.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


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
    return spec, merged
