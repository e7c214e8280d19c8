"""Reads what the state of a run is computed from. It only reads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from socket import gethostname
from typing import Any

from hpcsft.cluster import local
from hpcsft.errors import RunNotFoundError
from hpcsft.log_tail import one_line
from hpcsft.monitor.reading.evaluation import read_judged
from hpcsft.monitor.reading.files import Files
from hpcsft.monitor.reading.logs import failure_logs
from hpcsft.monitor.reading.snapshot import Snapshot
from hpcsft.monitor.reading.training import read_training
from hpcsft.monitor.state.facts import Details, Facts, Log, Task
from hpcsft.monitor.state.task import is_news
from hpcsft.owner import Owner, why_unseen
from hpcsft.plan import Plan
from hpcsft.records import BY_HAND, StageStatus, Submission, SubmittedStage, read_json, read_jsonl
from hpcsft.rundir import RunDir

Rows = list[dict[str, Any]]

MOST_LOGS = 4
"""Of so many tasks of a stage logs are read: a stage tells of one."""
BEATS_S = 10.0
"""Heartbeats are read so often: there is one file for each rank, renewed every 30 s."""


JOURNAL_KEYS = {"time", "event", "job_id", "restart"}
"""What every row of a journal has; others are not understood, and passed over."""


class Reader:
    """Reads one run directory again and again, and what has not changed only once."""

    def __init__(self, run: RunDir):
        self.run = run
        self.files = Files()
        self._beats: list[dict[str, Any]] = []
        self._next_beats_s = float("-inf")

    def stamp(self) -> list[tuple[str, int, int]]:
        """Changes whenever what the run has used does."""
        paths = [self.run.metrics, self.run.validation, self.run.submission, *sorted(self.run.attempts.glob("*.jsonl"))]
        found = [(path.name, path.stat()) for path in paths if path.exists()]
        return [(name, facts.st_mtime_ns, facts.st_size) for name, facts in found]

    def facts(self, snapshot: Snapshot, detailed: bool) -> Facts:
        """Everything about the run; `snapshot` is what Slurm says, which has to be older than the files.

        A task that ends in between is then seen as done, not as vanished. The driver is looked at first for the same
        reason. Raises RunNotFoundError, HpcsftError if a file is not understood, OSError.
        """
        run, now = self.run, time.time()
        plan = self.files.read(run.plan, _plan)
        if plan is None:
            raise RunNotFoundError(f"{run.path}: no run here any more", "was it moved or removed?")
        submission = self.files.read(run.submission, _submission)
        in_slurm = submission is not None and submission.cluster == "slurm"
        owner = Owner.of(submission) if submission and in_slurm else Owner(None, None)
        unseen = why_unseen(owner, snapshot.here)
        asked = in_slurm and snapshot.known and not unseen
        submitted = submission.latest() if submission else {}
        driver_alive = _driver_alive(run, submission)
        statuses = self._statuses()
        hands = hands_off(statuses)
        if hands:  # one of them may have ended, and said so, in between
            statuses = self._statuses()
        return Facts.model_construct(
            run_dir=str(run.path),
            plan=plan,
            in_slurm=in_slurm,
            submitted=submitted,
            statuses=statuses,
            queue=snapshot.entries(job.job_id for job in submitted.values()) if asked else None,
            driver_alive=driver_alive,
            cancelled=run.cancelled.exists(),
            hands_off=hands,
            train=read_training(run, self.files, detailed, _began(statuses)),
            launcher_logs=launcher_logs(run) if detailed else {},
            as_of=snapshot.time if asked else None,
            problem=snapshot.problem if in_slurm and not unseen else None,
            unseen=unseen,
            owner=owner,
            now=now,
            details=self._details(plan, submitted, statuses) if detailed else None,
        )

    def _statuses(self) -> list[StageStatus]:
        files = sorted(file for file in self.run.status.glob("*.json") if not file.name.startswith("."))
        return [status for file in files if (status := self.files.read(file, _status))]

    def _details(self, plan: Plan, submitted: Mapping[str, SubmittedStage], statuses: list[StageStatus]) -> Details:
        run, files = self.run, self.files
        tasks = [(stage, index) for stage in plan.stages for index in range(stage.tasks)]
        journals = {
            (stage.name, index): rows
            for stage, index in tasks
            if (rows := files.read(run.journal_file(stage.name, index, stage.tasks), _rows))
        }
        spec = files.read(run.spec, read_json) or {}
        if time.monotonic() >= self._next_beats_s:
            found = [files.read(file, _json_or_none) for file in run.heartbeat.glob("[0-9]*.json")]
            self._beats = [beat for beat in found if beat]
            self._next_beats_s = time.monotonic() + BEATS_S
        return Details.model_construct(
            journals=journals,
            retries=spec.get("cluster", {}).get("retries", {}),
            heartbeats=self._beats,
            judged=read_judged(run, spec, files),
            logs=dict(self._logs(plan, submitted, journals, statuses)),
        )

    def _logs(
        self,
        plan: Plan,
        submitted: Mapping[str, SubmittedStage],
        journals: Mapping[Task, Rows],
        said: list[StageStatus],
    ) -> Iterator[tuple[Task, list[Log]]]:
        """Of every task that may have failed."""
        known = {(status.stage, status.index): status for status in said}
        for stage in plan.stages:
            job = submitted.get(stage.name)
            tasks = [(stage.name, index) for index in range(stage.tasks)]
            suspects = [task for task in tasks if (job or task in known) and _may_have_failed(known, journals, task)]
            for task in sorted(suspects, key=lambda task: task not in known)[:MOST_LOGS]:
                status = known.get(task)
                job_id = status.job_id if status else f"{job.job_id}_{task[1]}" if stage.tasks > 1 else job.job_id
                if logs := failure_logs(self.run, stage.name, job_id, status, journals.get(task, []), self.files):
                    yield task, logs


def _may_have_failed(known: Mapping[Task, StageStatus], journals: Mapping[Task, Rows], task: Task) -> bool:
    status, rows = known.get(task), journals.get(task, [])
    return status is None or status.state not in ("running", "done") or bool(rows and rows[-1]["event"] == "end")


def open_jobs(facts: Facts) -> set[str]:
    """Jobs of a run in Slurm about whose end no task has said a word, and which Slurm's answer could hold."""
    told = {(status.stage, status.index) for status in facts.statuses if status.state in ("done", "failed", "waiting")}
    return {
        job.job_id
        for stage, job in facts.submitted.items()
        if not is_news(facts, job) and not all((stage, index) in told for index in range(job.tasks))
    }


def hands_off(statuses: list[StageStatus]) -> list[str]:
    """Job ids of what was started by hand on this machine, and whose process is gone."""
    here = [status.job_id for status in statuses if status.by_hand and status.host == gethostname()]
    return [job_id for job_id in here if not Path("/proc", job_id.removeprefix(BY_HAND)).exists()]


def launcher_logs(run: RunDir) -> dict[str, str]:
    """The newest of submitit's own error logs of each stage that says anything, relative to the run directory."""
    logs = sorted(run.submitit.glob("*/*_log.err"), key=lambda path: path.stat().st_mtime)
    return {path.parent.name: str(path.relative_to(run.path)) for path in logs if path.stat().st_size}


def _began(statuses: list[StageStatus]) -> float:
    """When the newest attempt at training began, in seconds since the epoch; 0 before there is one."""
    started = next((status.started for status in statuses if status.stage == "train" and status.started), None)
    return datetime.fromisoformat(started).timestamp() if started else 0.0


def _driver_alive(run: RunDir, submission: Submission | None) -> bool | None:
    if submission is None or submission.cluster != "local" or not submission.jobs:
        return None
    return local.driver_alive(run, submission.jobs[-1].job_id, submission.host)


def _submission(path: Path) -> Submission:
    return Submission.model_validate(read_json(path))


def _plan(path: Path) -> Plan:
    return Plan.model_validate(read_json(path))


def _status(path: Path) -> StageStatus:
    """What a task says, without what would change a terminal, or its lines."""
    status = StageStatus.model_validate(read_json(path))
    said = {name: text and one_line(text) for name, text in (("message", status.message), ("hint", status.hint))}
    return status.model_copy(update=said)


def _rows(path: Path) -> Rows:
    return [row for row in read_jsonl(path) if isinstance(row, dict) and row.keys() >= JOURNAL_KEYS]


def _json_or_none(path: Path) -> Any:
    with contextlib.suppress(ValueError):
        return read_json(path)
