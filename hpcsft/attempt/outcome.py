"""What follows when an attempt has ended: its cause, its budget, and the way back into the queue.

    python -m hpcsft.attempt.outcome RUN_DIR STAGE EXIT_STATUS      the batch script, after srun

Where the batch script could not (Slurm took the node, or requeued the job by itself), the next attempt looks back at
its start. The local driver asks the same questions.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hpcsft.attempt.causes import OUT_OF_MEMORY_LOG, SLURM_STATES, Verdict, judge_end
from hpcsft.attempt.fence import Fence, Token
from hpcsft.attempt.identity import TaskIdentity
from hpcsft.attempt.journal import Journal, Row, last
from hpcsft.cluster import client
from hpcsft.errors import EXIT_FAILED, EXIT_OK, ClusterError, Fenced
from hpcsft.plan import Plan, StagePlan
from hpcsft.records import StageStatus, now, read_json, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec

LOG_TAIL_BYTES = 8192
REQUEUE_PATIENCE_S = 600
RETRY_INTERVAL_S = 5


class Outcome:
    """The end of one attempt at one task."""

    def __init__(self, run: RunDir, stage: StagePlan, index: int, token: Token):
        self.run = run
        self.stage = stage
        self.index = index
        self.token = token
        self.journal = Journal(run, stage.name, index, stage.tasks, token)
        self.fence = Fence(run, stage.name, index, stage.tasks, token)

    @property
    def job_id(self) -> str:
        """The job as Slurm's clients want it: 12, or 12_3 for a task of an array."""
        return self.token.job_id

    def status(self) -> StageStatus | None:
        """What the task said last."""
        return self.run.read_status(self.stage.name, self.index, self.stage.tasks)

    def is_done(self) -> bool:
        """Is the task done?"""
        status = self.status()
        return status is not None and status.state == "done"

    def settle(self, exit_status: int | None) -> Verdict:
        """Write down why the attempt ended, and judge whether there may be another. Not for a task that is done."""
        rows = self.journal.of_attempt()
        cause = self._cause(rows, exit_status)
        failed = last(rows, "failed")
        told = failed.get("message") if failed else None
        if not rows and exit_status is not None and cause == "code":
            told = f"the job ended with exit status {exit_status} before it could say anything"
        self.journal.end(cause, self.committed(), status=exit_status)
        spec = ExperimentSpec.model_validate(read_json(self.run.spec))
        verdict = judge_end(self.journal.of_submission(), cause, told, spec.cluster.retries.model_dump())
        hint = failed.get("hint") if failed and cause == failed["cause"] else None
        return verdict._replace(hint=hint or verdict.hint)

    def committed(self) -> int:
        """What the task has kept for good: the step of its newest checkpoint, or its finished items."""
        saved = [row["step"] for row in self.journal.rows() if row["event"] == "saved"]
        status = self.status()
        if saved or self.stage.name == "train":
            return max(saved, default=0)
        return status.progress.done if status and status.progress else 0

    def record(self, verdict: Verdict) -> None:
        """Tell the verdict in the task's status."""
        status = self.status()
        known = status.model_dump() if status else {"stage": self.stage.name, "index": self.index, "attempt": 1}
        changed = {
            "job_id": self.token.job_id,
            "restart": self.token.restart,
            "state": "stopped" if verdict.requeue else "failed",
            "message": verdict.message,
            "hint": verdict.hint,
            "updated": now(),
        }
        file = self.run.status_file(self.stage.name, self.index, self.stage.tasks)
        write_json(file, StageStatus.model_validate({**known, **changed}))

    def _cause(self, rows: Sequence[Row], exit_status: int | None) -> str:
        if self.run.cancelled.exists():
            return "cancelled"
        if any(self._log_folder().glob("*.hang.json")):
            return "hang"
        stopped, failed, notice = (last(list(rows), event) for event in ("stopped", "failed", "notice"))
        if stopped:
            return stopped["cause"]
        told = failed["cause"] if failed else None
        if told not in (None, "rank_failure"):
            return told
        if exit_status is None:
            return SLURM_STATES.get(self._past_state() or "") or self._unaccounted(rows, notice, told)
        if self._log_speaks_of_memory():
            return "out_of_memory"
        if notice:
            return cause_of_notice(self.token, notice["signal"])
        if exit_status == 0:
            return "rank_failure"  # it ended without a word
        if told or exit_status > 128:  # a signal: Slurm's own, if it was sent before anybody listened
            facts = _query(self.job_id) if self._in_slurm() else None
            return "preemption" if facts and (facts.preempted or not facts.running) else "rank_failure"
        return "code"

    def _unaccounted(self, rows: Sequence[Row], notice: Row | None, told: str | None) -> str:
        """The cause where Slurm keeps no accounts: a node that is down says more than the signal that followed."""
        start = last(list(rows), "start")
        if start and start.get("nodes") and client.any_node_down(start["nodes"]):
            return "node_failure"
        return "preemption" if notice else told or "node_failure"

    def _in_slurm(self) -> bool:
        return self.job_id.split("_")[0].isdigit()

    def _past_state(self) -> str | None:
        """How Slurm's accounts call the end of this attempt."""
        states = client.past_states(self.job_id) if self._in_slurm() else []
        return states[self.token.restart] if self.token.restart < len(states) - 1 else None

    def _log_folder(self) -> Path:
        return self.run.log_folder(self.stage.name, self.token.job_id, self.token.restart)

    def _log_speaks_of_memory(self) -> bool:
        launchers = (self.run.submitit / self.stage.name).glob(f"{self.job_id}_*_log.err")
        return any(sign in _tail(path) for path in launchers for sign in OUT_OF_MEMORY_LOG)


def settle_earlier(run: RunDir, stage: StagePlan, index: int, task: TaskIdentity) -> Verdict | None:
    """Judge the attempt before this one, if nobody has: its batch script may have gone with its node.

    None if there was none in this job.
    """
    rows = Journal(run, stage.name, index, stage.tasks, task.token).of_submission()
    earlier = [row for row in rows if row["restart"] < task.restart]
    if not earlier or last(earlier, "done"):
        return None
    token = Token(job_id=task.job_id, restart=earlier[-1]["restart"])
    outcome = Outcome(run, stage, index, token)
    return None if last(outcome.journal.of_attempt(), "end") else outcome.settle(None)


def cause_of_notice(token: Token, signal_name: str) -> str:
    """Why Slurm asked an attempt to stop. Without an answer from Slurm, what the signal usually means."""
    if signal_name == "time limit":
        return "timeout"
    if not token.job_id.split("_")[0].isdigit():
        return "signal"
    facts = _query(token.job_id)
    if facts is None:
        return "timeout" if signal_name == "SIGUSR2" else "preemption"
    if facts.preempted:
        return "preemption"
    if facts.used_up:
        return "timeout"
    if not facts.running:
        nodes = os.environ.get("SLURM_JOB_NODELIST")
        return "node_failure" if nodes and client.any_node_down(nodes) else "preemption"
    remaining_s = facts.remaining_s()
    return "timeout" if signal_name == "SIGUSR2" and remaining_s is not None and remaining_s < 600 else "signal"


def _query(job_id: str) -> client.JobFacts | None:
    try:
        return client.query_job(job_id)
    except ClusterError:
        return None


def _tail(path: Path) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
        return file.read().decode(errors="replace").lower()


def requeue(job_id: str, run: RunDir) -> str | None:
    """Put the job back into the queue; None when that is done or Slurm does it, else why it was impossible.

    Waits for a controller that does not answer. What somebody cancels is left alone.
    """
    deadline_s = time.monotonic() + REQUEUE_PATIENCE_S
    while True:
        try:
            facts = client.query_job(job_id)
            if facts is None:
                return "Slurm has forgotten the job"
            if run.cancelled.exists():
                return "it was cancelled"
            if facts.state == "COMPLETING" and not facts.used_up:
                return None  # Slurm has decided already: it requeues the job itself, or somebody has cancelled it
            client.requeue_job(job_id)
            return None
        except ClusterError as error:
            if time.monotonic() > deadline_s or "disabled" in error.message or "ermission" in error.message:
                return error.message
        time.sleep(RETRY_INTERVAL_S)


def main(argv: list[str]) -> int:
    """The end of the batch script; returns the exit status of the job."""
    run, exit_status = RunDir.open(argv[0]), int(argv[2])
    stage = Plan.model_validate(read_json(run.plan)).stage(argv[1])
    index = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    outcome = Outcome(run, stage, index, TaskIdentity.from_environment().token)
    if outcome.is_done():
        return EXIT_OK
    newest = outcome.fence.newest()
    if outcome.fence.is_stale() or (newest and newest != outcome.token and outcome.journal.of_attempt()):
        print(f"hpcsft: attempt {outcome.token} is not the newest any more ({newest}): nothing to decide")
        return Fenced.exit_code
    verdict = outcome.settle(exit_status)
    if run.cancelled.exists():
        return EXIT_FAILED
    if verdict.requeue:
        outcome.record(verdict)
        impossible = requeue(outcome.job_id, run)
        if impossible is None:
            print(f"hpcsft: {stage.name} goes back into the queue: {verdict.message}", flush=True)
            return EXIT_FAILED  # of this attempt; Slurm holds the job
        hint = f"python launch/resume.py {run.path} goes on"
        verdict = Verdict(False, f"{verdict.message}; and it could not be requeued: {impossible}", hint)
    outcome.record(verdict)
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
