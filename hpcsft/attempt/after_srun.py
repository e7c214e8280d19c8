"""The end of the batch script: what the end of srun means, and the way back into the queue.

python -m hpcsft.attempt.after_srun RUN_DIR STAGE EXIT_STATUS
"""

from __future__ import annotations

import os
import signal
import sys
import time

from hpcsft import slurm_client
from hpcsft.attempt.causes import CAUSES, Verdict
from hpcsft.attempt.exclusion import Exclusion, exclude, plan_exclusion
from hpcsft.attempt.fence import Token
from hpcsft.attempt.identity import TaskIdentity
from hpcsft.attempt.outcome import Outcome
from hpcsft.errors import EXIT_FAILED, EXIT_OK, ClusterError, Fenced, report_errors
from hpcsft.notify.announce import announce
from hpcsft.plan import Plan
from hpcsft.records import read_json
from hpcsft.rundir import RunDir

PATIENCE_S = 600
"""How long a controller that does not answer is asked again."""
INTERVAL_S = 5
REFUSALS = ("disabled", "ermission", "Access/permission")
"""What scontrol says when asking again would not help."""


def requeue(token: Token, run: RunDir) -> str | None:
    """Put the job of the attempt `token` back into the queue; None when it is there, else why that is impossible.

    Slurm counts the restarts of a job in the same operation that requeues it. If the count is not this attempt's any
    more, Slurm has requeued the job by itself, and perhaps started it: then nothing is done.
    """
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            if run.is_cancelled():
                return "it was cancelled"
            facts = slurm_client.query_job(token.job_id)
            if facts is None:
                return "Slurm has forgotten the job"
            if facts.restarts != token.restart:
                return None
            if not facts.running and not facts.used_up and not facts.preempted:
                return "Slurm has ended the job for good (scancel, or a partition whose preemptions cancel)"
            slurm_client.requeue_job(token.job_id)
            return None
        except ClusterError as error:
            if time.monotonic() > deadline_s or any(sign in error.message for sign in REFUSALS):
                return error.message
        time.sleep(INTERVAL_S)


def main(argv: list[str]) -> int:
    """Judge the attempt, and tell the user if that ends the run; returns the exit status of the job."""
    run, exit_status = RunDir.open(argv[0]).for_writing(), int(argv[2])
    stage = Plan.model_validate(read_json(run.plan)).stage(argv[1])
    index = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    outcome = Outcome(run, stage, index, TaskIdentity.from_environment().token)
    if outcome.is_done():
        announce(run)
        return EXIT_OK
    if outcome.fence.lost(begun=bool(outcome.journal.of_attempt())):
        print(f"hpcsft: attempt {outcome.token} is not the newest any more: nothing to decide")
        return Fenced.exit_code
    verdict = outcome.settle(exit_status)
    if run.is_cancelled():
        return EXIT_FAILED
    exclusion = plan_exclusion(outcome.token, outcome.unfit) if verdict.requeue else Exclusion()
    if exclusion.impossible:
        verdict = Verdict(False, f"{verdict.message}; {exclusion.impossible}", CAUSES["bad_node"].hint)
    if verdict.requeue:
        outcome.record(verdict)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm sends it to this very process for the requeue
        impossible = requeue(outcome.token, run)
        if impossible is None:
            print(f"hpcsft: {stage.name} goes back into the queue: {verdict.message}", flush=True)
            exclude(outcome.token, exclusion, outcome.journal)
            return EXIT_FAILED  # of this attempt; Slurm holds the job
        if outcome.fence.is_stale():
            return Fenced.exit_code
        hint = f"python launch/resume.py {run.path} goes on"
        verdict = Verdict(False, f"{verdict.message}; and it could not be requeued: {impossible}", hint)
    outcome.record(verdict)
    announce(run)
    return EXIT_FAILED


def script(argv: list[str]) -> int:
    """`main`, for a run directory that may have gone meanwhile: RunNotFoundError says so, and nothing is requeued."""
    run = RunDir(argv[0])
    run.refuse_if_gone()
    try:
        return main(argv)
    except OSError:
        run.refuse_if_gone()
        raise


if __name__ == "__main__":
    sys.exit(report_errors(script, sys.argv[1:]))
