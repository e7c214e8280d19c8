"""The stages of a prepared run, one after the other into the queue or to the driver; and back, when one is refused."""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence
from contextlib import suppress

from hpcsft import slurm_client
from hpcsft.cluster import local, slurm
from hpcsft.cluster.intent import look_for_job, new_intent, unclear
from hpcsft.cluster.lock import SubmissionLock
from hpcsft.errors import ClusterError, HpcsftError, SubmissionError, UnclearError
from hpcsft.owner import this_cluster_or_none, this_user
from hpcsft.plan import Plan
from hpcsft.records import Submission, SubmittedStage, now
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec


def submit_stages(
    spec: ExperimentSpec,
    plan: Plan,
    run: RunDir,
    stages: Sequence[str],
    kind: str,
    lock: SubmissionLock,
    done: Collection[str] = (),
) -> list[SubmittedStage]:
    """Submit `stages` of a prepared run to the cluster of this `kind`, and return what was submitted.

    A stage waits for its predecessors unless they are in `done`. What is about to be submitted is written down before
    it is, and its job id before the next. If one is refused, those submitted before it are cancelled and the error is
    raised. UnclearError: nobody could tell whether Slurm has taken a job, and everything is left for who settles it.
    """
    submission = run.read_submission() or Submission(cluster=kind, host=socket.gethostname())
    if submission.cluster != kind:
        message = f"{run.path} was submitted to the {submission.cluster} cluster, this is the {kind} one"
        raise SubmissionError(message, "go to the machine that it was submitted from")
    check_order(plan, stages, {job.stage for job in submission.jobs} | set(done))
    here = this_cluster_or_none() if kind == "slurm" else None
    facts = {"path": str(run.path), "user": this_user(), "cluster_name": here.name if here else submission.cluster_name}
    submission = submission.model_copy(update=facts)
    lock.renew()
    if kind == "local":
        return _submit_local(plan, run, stages, submission)
    return _Chain(spec, plan, run, submission, lock).submit(stages, done)


def check_order(plan: Plan, stages: Sequence[str], known: Collection[str]) -> None:
    """SubmissionError if one of `stages` needs another that is neither among them nor `known`."""
    for name in stages:
        for needed in plan.stage(name).depends_on:
            if needed not in stages and needed not in known:
                hint = f"add it: --stages {needed},{','.join(stages)}"
                raise SubmissionError(f"the stage {name} needs {needed}, which is neither done nor submitted", hint)


def _submit_local(plan: Plan, run: RunDir, stages: Sequence[str], submission: Submission) -> list[SubmittedStage]:
    wanted = [
        SubmittedStage(stage=name, job_id="", depends_on=[], tasks=plan.stage(name).tasks, submitted=now())
        for name in stages
    ]
    submission = submission.model_copy(update={"host": socket.gethostname()})
    run.write_submission(submission.model_copy(update={"intent": new_intent(wanted)}))
    try:
        job_id = local.start_driver(run, list(stages))
    except OSError:
        with suppress(OSError):
            run.write_submission(submission)
        raise
    jobs = [job.model_copy(update={"job_id": job_id}) for job in wanted]
    run.write_submission(submission.model_copy(update={"jobs": [*submission.jobs, *jobs]}))
    return jobs


class _Chain:
    """Jobs that wait for one another, as far as they have been submitted."""

    def __init__(self, spec: ExperimentSpec, plan: Plan, run: RunDir, before: Submission, lock: SubmissionLock):
        self.spec, self.plan, self.run, self.before, self.lock = spec, plan, run, before, lock
        self.jobs: list[SubmittedStage] = []
        self.cancelled_before = run.cancelled.exists()

    @property
    def so_far(self) -> Submission:
        return self.before.model_copy(update={"jobs": [*self.before.jobs, *self.jobs]})

    def submit(self, stages: Sequence[str], done: Collection[str]) -> list[SubmittedStage]:
        try:
            for name in stages:
                self._submit(name, done)
                if self.run.cancelled.exists() and not self.cancelled_before:
                    hint = f"python launch/resume.py {self.run.path} submits it again"
                    raise SubmissionError(f"{self.run.path} was cancelled while it was being submitted", hint)
            self.run.write_submission(self.so_far)
        except UnclearError:
            raise
        except (HpcsftError, OSError) as error:
            self._take_back(error)
            raise
        return self.jobs

    def _submit(self, name: str, done: Collection[str]) -> None:
        stage, ids = self.plan.stage(name), {job.stage: job.job_id for job in self.so_far.jobs}
        after = [ids[needed] for needed in stage.depends_on if needed not in done]
        job = SubmittedStage(stage=name, job_id="", depends_on=after, tasks=stage.tasks, submitted=now())
        intent = new_intent([job])
        self.lock.renew()
        self.run.write_submission(self.so_far.model_copy(update={"intent": intent}))
        try:
            job_id = slurm.submit_stage(self.spec, self.run, stage, after, intent.mark)
        except UnclearError as error:
            try:
                found = look_for_job(self.run, intent, set(ids.values()))
            except ClusterError as silent:
                raise unclear(self.run, intent, silent.message) from None
            if found is None:
                message = f"{error.message}; the job is not in the queue"
                raise ClusterError(message, "try again when `squeue` answers quickly") from None
            job_id = found
        self.jobs.append(job.model_copy(update={"job_id": job_id}))

    def _take_back(self, error: HpcsftError | OSError) -> None:
        """Cancel what was submitted. Where Slurm does not answer to that, it stays, and is written down."""
        names, left = ", ".join(job.stage for job in self.jobs), self.before
        told = f" ({names} had been submitted, and {_are(self.jobs)} cancelled again)"
        try:
            slurm_client.cancel_jobs([job.job_id for job in self.jobs])
        except ClusterError:
            told, left = f" ({names} had been submitted: still in the queue)", self.so_far
        if self.jobs and isinstance(error, HpcsftError):
            error.message += told
        with suppress(OSError):  # then it names cancelled jobs, or the intent is settled by the next command
            if left.jobs:
                self.run.write_submission(left)
            else:  # possible on a full disk, too
                self.run.submission.unlink()


def _are(jobs: Sequence[SubmittedStage]) -> str:
    return "is" if len(jobs) == 1 else "are"
