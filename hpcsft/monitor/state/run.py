"""What state a run is in: one pure function of what was submitted, what the tasks said and what the queue holds.

The run directory is the truth about what ended; the queue only tells about what has not. A job that Slurm still holds
is never called failed, whatever its last attempt said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from hpcsft.errors import EXIT_CANCELLED, EXIT_FAILED, EXIT_OK, EXIT_RUN_WAITING, EXIT_STAGE_FAILED, EXIT_UNFINISHED
from hpcsft.monitor.state.facts import Facts, State
from hpcsft.monitor.state.ranks import RankTrouble, rank_troubles
from hpcsft.monitor.state.stage import StageState, TaskState, stage_state, whole_state
from hpcsft.monitor.state.standing import Standing, standing
from hpcsft.plan import StagePlan
from hpcsft.records import Record
from hpcsft.usage.record import Usage

SCHEMA_VERSION = 1

EXIT_CODE = {
    "done": EXIT_OK,
    "failed": EXIT_STAGE_FAILED,
    "waiting": EXIT_RUN_WAITING,
    "cancelled": EXIT_CANCELLED,
    "pending": EXIT_UNFINISHED,
    "running": EXIT_UNFINISHED,
    "unsubmitted": EXIT_UNFINISHED,
}
"""What `monitor --once` and `submit --watch` return for the state of the run."""

WORST_FIRST = ("failed", "waiting", "cancelled", "unsubmitted", "pending", "running", "done")
"""Of several runs the first of these decides the exit code."""


class RunState(Record):
    """One run as the monitor shows it; its dump is the document of `monitor --once --json`."""

    schema_version: int = SCHEMA_VERSION
    run_dir: str
    state: State
    stages: list[StageState]
    train: dict[str, Any]
    as_of: float | None = None
    """When Slurm said what it holds, in seconds since the epoch; None without Slurm, or before it has answered."""
    problem: str | None = None
    """Why there is nothing newer."""
    unseen: str | None = None
    """Why Slurm is not asked about it here: what is told comes from the run directory alone."""
    now: float = 0.0
    """When the run directory was read, in seconds since the epoch."""
    ranks: list[RankTrouble] = []
    standings: list[Standing] = []
    usage: Usage | None = None
    """What it used, when it has ended."""
    lost: str | None = None
    """Why its directory cannot be read now; what is told is older then."""
    gone: bool = False
    """Is the directory not there any more?"""

    @property
    def name(self) -> str:
        """NAME-HASH8."""
        return self.run_dir.rsplit("/", 1)[-1]

    @property
    def finished(self) -> bool:
        """Will nothing change any more by itself? What failed has not ended while parts of it go on."""
        if self.gone or self.unreadable:
            return True
        if self.state == "failed" and any(task.state in ("running", "pending") for task in self._tasks()):
            return False
        return self.state in ("done", "failed", "waiting", "cancelled")

    @property
    def unreadable(self) -> bool:
        """Could nothing of it be read, now or before?"""
        return self.lost is not None and not self.stages

    def _tasks(self) -> Iterator[TaskState]:
        return (task for stage in self.stages for task in stage.tasks)

    @property
    def exit_code(self) -> int:
        """The exit code that tells this state."""
        return EXIT_FAILED if self.unreadable else EXIT_CODE[self.state]


def exit_code(states: Sequence[RunState]) -> int:
    """The exit code of several runs: that of the worst; of those that cannot be read, unless another has failed."""
    worst = min(states, key=lambda state: WORST_FIRST.index(state.state))
    return EXIT_FAILED if worst.state != "failed" and any(s.unreadable for s in states) else worst.exit_code


def run_state(facts: Facts) -> RunState:
    """The state of a run."""
    stages: list[StageState] = []
    hands_on = [s for s in facts.statuses if s.by_hand and s.state == "running" and s.job_id not in facts.hands_off]
    by_hand = {status.stage for status in hands_on}
    for stage in facts.plan.stages:
        needed = _needed(facts, stage)
        before: set[State] = {earlier.state for earlier in stages if earlier.name in needed}
        if needed & by_hand:
            before.add("waiting")  # what follows is in that person's hands as well
        stages.append(stage_state(facts, stage, before))
    shown = [stage for stage in stages if stage.state != "unsubmitted"]
    return RunState(
        run_dir=facts.run_dir,
        state=whole_state([stage.state for stage in shown]) if shown else "unsubmitted",
        stages=stages,
        train=facts.train,
        as_of=facts.as_of,
        problem=facts.problem,
        unseen=facts.unseen,
        now=facts.now,
        ranks=_ranks(facts, stages),
        standings=[standing(judged) for judged in facts.details.judged] if facts.details else [],
    )


def _needed(facts: Facts, stage: StagePlan) -> set[str]:
    """Stages that have to end well before `stage`. A driver on one machine ends with the first that does not."""
    names = facts.plan.stage_names
    if facts.driver_alive is not None:
        return set(names[: names.index(stage.name)])
    found = set(stage.depends_on)
    for name in reversed(names[: names.index(stage.name)]):
        if name in found:
            found |= set(facts.plan.stage(name).depends_on)
    return found


def _ranks(facts: Facts, stages: Sequence[StageState]) -> list[RankTrouble]:
    """Ranks to name while training runs."""
    running = any(stage.name == "train" and stage.state == "running" for stage in stages)
    status = next((status for status in facts.statuses if status.stage == "train"), None)
    if facts.details is None or status is None or not running or not status.started:
        return []
    since = datetime.fromisoformat(status.started).timestamp()
    return rank_troubles(facts.details.heartbeats, facts.train, since, facts.now)
