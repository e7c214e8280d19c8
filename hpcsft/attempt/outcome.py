"""Why an attempt ended, and what becomes of its task.

The batch script asks after srun (`after_srun.py`). Where it could not, because Slurm took the node or requeued the job
by itself, the next attempt looks back at its start. The local driver asks the same questions.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from hpcsft import slurm_client
from hpcsft.attempt.causes import (
    CAUSES,
    LAUNCH_FAILED_LOG,
    OUT_OF_MEMORY_LOG,
    SLURM_STATES,
    Verdict,
    judge_end,
    killed,
    unfit_nodes,
)
from hpcsft.attempt.fence import Fence, Token
from hpcsft.attempt.identity import TaskIdentity
from hpcsft.attempt.journal import Journal, Row, last
from hpcsft.errors import ClusterError
from hpcsft.plan import StagePlan
from hpcsft.records import StageStatus, now, read_json, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec

LOG_TAIL_BYTES = 8192


class Outcome:
    """The end of one attempt at one task."""

    def __init__(self, run: RunDir, stage: StagePlan, index: int, token: Token):
        self.run = run
        self.stage = stage
        self.index = index
        self.token = token
        self.journal = Journal(run, stage.name, index, stage.tasks, token)
        self.fence = Fence(run, stage.name, index, stage.tasks, token)
        self.unfit: list[str] = []
        """The nodes that attempts of this job have found unfit, this one included, once it is settled."""

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
        failed = decisive_failure(rows)
        told = failed.get("message") if failed else None
        if not rows and exit_status is not None and cause == "code":
            told = f"the job ended with exit status {exit_status} before it could say anything"
        said_so = failed is not None and failed["cause"] == "out_of_memory"
        spec = ExperimentSpec.model_validate(read_json(self.run.spec))
        halvings = self._halvings(spec.train.micro_batch_size, rows, said_so) if cause == "out_of_memory" else 0
        unfit = nodes_of(rows) if cause == "bad_node" else []
        facts = {"cause": cause, "progressed": self._progressed(rows), "status": exit_status, "halve": halvings > 0}
        end = self.journal.row("end", **facts, unfit=unfit or None, log_bytes=self._launcher_bytes())
        earlier = self.journal.of_submission()
        self.unfit = unfit_nodes([*earlier, end])
        with contextlib.suppress(OSError):  # a full disk must not keep the job from going on
            self.journal.append(end)
        if cause == "bad_node" and not self.token.in_slurm:  # there is no other node
            return Verdict(False, told or CAUSES[cause].text, None)
        verdict = judge_end([*earlier, end], cause, told, spec.cluster.retries.model_dump(), halvings)
        hint = failed.get("hint") if failed and cause == failed["cause"] else None
        return verdict._replace(hint=hint or verdict.hint)

    def _halvings(self, micro_batch_size: int, rows: Sequence[Row], rank_said_so: bool) -> int:
        """How often the micro batch of training can be halved, where that helps.

        Before training was ready it was not the micro batch. With GPUs it is the host's memory if the kernel has ended
        a rank.
        """
        helps = last(rows, "ready") is not None and (rank_said_so or not self.stage.gpus_per_node)
        return micro_batch_size.bit_length() - 1 if helps else 0

    def _progressed(self, rows: Sequence[Row]) -> bool:
        """Has the attempt kept anything for good: a checkpoint beyond the one it came from, or finished items?"""
        if self.stage.name == "train":
            resumed = last(rows, "resumed")
            return resumed is not None and any(row["step"] > resumed["step"] for row in rows if row["event"] == "saved")
        start, status = last(rows, "start"), self.status()
        done = status.progress.done if status and status.progress else 0
        return start is not None and done > start.get("done", 0)

    def record(self, verdict: Verdict) -> None:
        """Tell the verdict in the task's status. What waits for a person goes on waiting."""
        status = self.status()
        if status and status.state == "waiting" and not verdict.requeue:
            return
        known = status.model_dump() if status else {"stage": self.stage.name, "index": self.index, "attempt": 1}
        changed = {
            "job_id": self.token.job_id,
            "restart": self.token.restart,
            "state": "stopped" if verdict.requeue else "failed",
            "message": verdict.message,
            "hint": verdict.hint,
            "updated": now(),
        }
        if status and (status.job_id, status.restart) != (self.token.job_id, self.token.restart):
            changed |= {"attempt": status.attempt + 1, "log": None}  # this attempt could not say a word of its own
        file = self.run.status_file(self.stage.name, self.index, self.stage.tasks)
        with contextlib.suppress(OSError):
            write_json(file, StageStatus.model_validate({**known, **changed}))

    def _cause(self, rows: Sequence[Row], exit_status: int | None) -> str:
        if self.run.is_cancelled():
            return "cancelled"
        if any(self._log_folder().glob("*.hang.json")):
            return "hang"
        stopped, failed, notice = last(rows, "stopped"), decisive_failure(rows), last(rows, "notice")
        if stopped:
            return stopped["cause"]
        told = failed["cause"] if failed else None
        if told not in (None, "rank_failure"):
            return told
        if exit_status is None:
            return SLURM_STATES.get(self._past_state() or "") or self._unaccounted(rows, notice, told)
        log = self._launcher_log()
        if any(sign in log for sign in OUT_OF_MEMORY_LOG):
            return "out_of_memory"
        asked = cause_of_notice(self.token, notice["signal"]) if notice else None
        if asked and not (asked == "signal" and killed(exit_status)):
            return asked
        if exit_status == 0:
            return "rank_failure"  # it ended without a word
        if told or rows or exit_status > 128:  # no last word: did Slurm end it before anybody listened, or could write?
            facts = _query(self.job_id) if self.token.in_slurm else None
            if facts and (facts.preempted or not facts.running):
                return "preemption"
        if told or exit_status > 128:
            return "rank_failure"
        return "node_failure" if not rows and any(sign in log for sign in LAUNCH_FAILED_LOG) else "code"

    def _unaccounted(self, rows: Sequence[Row], notice: Row | None, told: str | None) -> str:
        """The cause where Slurm keeps no accounts: a node that is down says more than the signal that followed."""
        start = last(rows, "start")
        if start and start.get("nodes") and slurm_client.any_node_down(start["nodes"]):
            return "node_failure"
        return "preemption" if notice else told or "node_failure"

    def _past_state(self) -> str | None:
        """How Slurm's accounts call the end of this attempt."""
        states = slurm_client.past_states(self.job_id) if self.token.in_slurm else []
        return states[self.token.restart] if self.token.restart < len(states) - 1 else None

    def _log_folder(self) -> Path:
        return self.run.log_folder(self.stage.name, self.token.job_id, self.token.restart)

    def _launchers(self) -> list[Path]:
        """What the batch script and srun printed; the attempts of a job share these files."""
        return sorted((self.run.submitit / self.stage.name).glob(f"{self.job_id}_*_log.err"))

    def _launcher_bytes(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self._launchers()}

    def _launcher_log(self) -> str:
        """What this attempt has added to them, in lower case."""
        before = last(self.journal.of_submission(), "end")
        known = before.get("log_bytes", {}) if before else {}
        return "".join(_tail(path, known.get(path.name, 0)) for path in self._launchers())


def decisive_failure(rows: Sequence[Row]) -> Row | None:
    """The failure that tells why: the first that is no echo of another rank's end, else the last."""
    failures = [row for row in rows if row["event"] == "failed"]
    return next((row for row in failures if row["cause"] != "rank_failure"), failures[-1] if failures else None)


def nodes_of(rows: Sequence[Row]) -> list[str]:
    """The nodes that an attempt whose cause is bad_node found unfit: as checked, or that of the rank that failed."""
    if checked := last(rows, "unfit"):
        return list(checked["nodes"])
    failed = decisive_failure(rows)
    return [failed["node"]] if failed and "node" in failed else []


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
    if not token.in_slurm:
        return "signal"
    facts = _query(token.job_id)
    if facts is None:
        end_s = slurm_client.told_end_s()
        at_its_end = end_s is None or end_s - time.time() < 600
        return "timeout" if signal_name == "SIGUSR2" and at_its_end else "preemption"
    if facts.preempted:
        return "preemption"
    if facts.used_up:
        return "timeout"
    if not facts.running:
        nodes = os.environ.get("SLURM_JOB_NODELIST")
        return "node_failure" if nodes and slurm_client.any_node_down(nodes) else "preemption"
    remaining_s = facts.remaining_s()
    return "timeout" if signal_name == "SIGUSR2" and remaining_s is not None and remaining_s < 600 else "signal"


def _query(job_id: str) -> slurm_client.JobFacts | None:
    try:
        return slurm_client.query_job(job_id)
    except ClusterError:
        return None


def _tail(path: Path, start: int) -> str:
    with open(path, "rb") as file:
        file.seek(max(start, path.stat().st_size - LOG_TAIL_BYTES))
        return file.read().decode(errors="replace").lower()
