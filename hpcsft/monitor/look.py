"""The states of runs, now: files and Slurm's last answer put together. Only reads."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hpcsft.errors import ClusterError, RunNotFoundError
from hpcsft.monitor.reading.collect import Reader, open_jobs
from hpcsft.monitor.reading.snapshot import NOTHING, SharedQueue, Snapshot
from hpcsft.monitor.state.facts import Facts
from hpcsft.monitor.state.run import RunState, run_state
from hpcsft.rundir import RunDir
from hpcsft.usage import Usage, usage_of

ONCE_AGE_S = 2.0
"""Scripts that ask `monitor --once` again and again ask Slurm no more often."""


class Look:
    """Looks at runs again and again; what has not changed is not read again."""

    def __init__(self, runs: Sequence[RunDir]):
        self.runs = list(runs)
        self.snapshot = NOTHING
        self._readers = [Reader(run) for run in runs]
        in_slurm = [reader.run for reader in self._readers if _in_slurm(reader)]
        self.queue = SharedQueue(in_slurm) if in_slurm else None
        """None if none of the runs is in Slurm."""
        self.news = False
        """Has a task said since the look before that it is in another state? Then Slurm may know more, too."""
        self._open: frozenset[str] = frozenset()
        self._known: dict[int, tuple[Facts, RunState]] = {}
        self._used: dict[int, tuple[Facts, Usage | None]] = {}

    def states(self, detailed: Collection[int] | None = None) -> list[RunState]:
        """The states of all runs, by their files and the last answer of Slurm; details only of the runs `detailed`.

        Raises RunNotFoundError if a run is not there, and HpcsftError if a file of it cannot be understood; one that
        goes while it is watched keeps its last state.
        """
        opened: set[str] = set()
        self.news = False
        states = [
            self._state(number, reader, detailed is None or number in detailed, opened)
            for number, reader in enumerate(self._readers)
        ]
        self._open = frozenset(opened)  # in one step: `ask` may run in another thread
        return states

    def _state(self, number: int, reader: Reader, full: bool, opened: set[str]) -> RunState:
        before, state = self._known.get(number, (None, None))
        try:
            facts = reader.facts(self.snapshot, full)
        except RunNotFoundError:
            if state is None:
                raise
            return state
        opened |= open_jobs(reader, facts)
        self.news |= before is not None and _words(before) != _words(facts)
        if full:
            state = run_state(facts)
            if state.finished:
                state = state.model_copy(update={"usage": self._usage_of(number, facts)})
        elif before is None or state is None or not _as_before(before, facts):
            state = run_state(facts)
        else:
            state = state.model_copy(update={"as_of": facts.as_of, "now": facts.now})
        self._known[number] = facts, state
        return state

    def _usage_of(self, number: int, facts: Facts) -> Usage | None:
        """Reads all metrics, so once for an end."""
        before, usage = self._used.get(number, (None, None))
        if before is None or not _as_before(before, facts):
            usage = usage_of(self.runs[number])
        self._used[number] = facts, usage
        return usage

    def ask(self, max_age_s: float) -> Snapshot:
        """Ask Slurm, unless somebody else has done so in the last `max_age_s` seconds. May take a minute."""
        if self.queue is not None:
            self.snapshot = self.queue.look(max_age_s, self._open)
        return self.snapshot


def look_at(
    runs: Sequence[RunDir], max_age_s: float = 0.0, tolerant: bool = False, detailed: bool = True
) -> list[RunState]:
    """The states of `runs` now, with at most one squeue for all of them; none if an answer of `max_age_s` is there.

    Raises ClusterError when Slurm does not answer, unless `tolerant`: then the states say so.
    """
    look = Look(runs)
    look.states(())  # tells which jobs have not been told about
    problem = look.ask(max_age_s).problem
    if problem and not tolerant:
        raise ClusterError(problem, "try again when Slurm answers")
    return look.states(None if detailed else ())


def _as_before(before: Facts, after: Facts) -> bool:
    """Is there nothing new, and nothing that time alone changes?"""
    if any(status.state == "running" for status in after.statuses):
        return False
    if (before.details is None) != (after.details is None):
        return False
    lasting = ("submitted", "statuses", "queue", "driver_alive", "cancelled", "hands_off", "train", "problem")
    return before.plan is after.plan and all(getattr(before, name) == getattr(after, name) for name in lasting)


def _words(facts: Facts) -> list[tuple[str, int, str, int, str]]:
    """What tasks say that they are in, not how far they are."""
    return [(said.stage, said.index, said.state, said.restart, said.job_id) for said in facts.statuses]


def _in_slurm(reader: Reader) -> bool:
    submission = reader.submission()
    return submission is not None and submission.cluster == "slurm"
