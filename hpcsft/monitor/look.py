"""The states of runs, now: files and Slurm's last answer put together."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from hpcsft.errors import ClusterError, HpcsftError, RunNotFoundError
from hpcsft.monitor.reading.collect import Reader, open_jobs
from hpcsft.monitor.reading.snapshot import NOTHING, SharedQueue
from hpcsft.monitor.state.facts import Facts
from hpcsft.monitor.state.run import RunState, run_state
from hpcsft.owner import Owner
from hpcsft.rundir import RunDir
from hpcsft.usage import Usage, usage_of

ONCE_AGE_S = 2.0
"""Scripts that ask `monitor --once` again and again ask Slurm no more often."""


class Look:
    """Looks at runs again and again; what has not changed is not read again."""

    def __init__(self, runs: Sequence[RunDir]):
        self.runs = list(runs)
        self.snapshot = NOTHING
        self.queue: SharedQueue | None = None
        """None as long as none of the runs is in Slurm."""
        self.news = False
        """Has a task said since the look before that it is in another state? Then Slurm may know more, too."""
        self._readers = [Reader(run) for run in runs]
        self._jobs: frozenset[str] = frozenset()
        self._open: frozenset[str] = frozenset()
        self._known: dict[int, tuple[Facts, RunState]] = {}
        self._used: dict[int, tuple[object, Usage | None]] = {}

    def states(self, detailed: Collection[int] | None = None) -> list[RunState]:
        """The states of all runs, by their files and the last answer of Slurm; details only of the runs `detailed`.

        What cannot be read keeps its last state and says why (`lost`). Of one run alone that is raised:
        RunNotFoundError if it is not there, HpcsftError if it was never read.
        """
        self.news = False
        states = [self.state(number, detailed is None or number in detailed) for number in range(len(self.runs))]
        in_slurm = [facts for facts, _ in self._known.values() if facts.in_slurm]
        if self.queue is None and in_slurm:
            self.queue = SharedQueue(self.runs, {Owner(*facts.owner) for facts in in_slurm})
        self._jobs = frozenset(job.job_id for known in in_slurm for job in known.submitted.values())
        seen = [facts for facts in in_slurm if not facts.unseen]
        self._open = frozenset().union(*map(open_jobs, seen))  # in one step: `ask` may run in another thread
        return states

    def state(self, number: int, full: bool = True) -> RunState:
        """The state of one run; see `states`."""
        before, state = self._known.get(number, (None, None))
        try:
            facts = self._readers[number].facts(self.snapshot, full)
        except (HpcsftError, OSError) as error:
            return self._lost(number, state, error)
        self.news |= before is not None and _words(before) != _words(facts)
        if before is None or state is None or not _as_before(before, facts):
            state = run_state(facts)
        state = state.model_copy(update={"as_of": facts.as_of, "now": facts.now, "lost": None})
        if full and state.finished:
            state = state.model_copy(update={"usage": self._usage_of(number, facts)})
        self._known[number] = facts, state
        return state

    def _lost(self, number: int, state: RunState | None, error: HpcsftError | OSError) -> RunState:
        """What is shown of a run that cannot be read now."""
        message = error.message if isinstance(error, HpcsftError) else f"{error.filename}: {error.strerror}"
        message = message.removeprefix(f"{self.runs[number].path}/")
        gone, alone = isinstance(error, RunNotFoundError), len(self.runs) == 1
        if alone and (gone or state is None):
            raise error if isinstance(error, HpcsftError) else HpcsftError(message) from None
        known = state or RunState(run_dir=str(self.runs[number].path), state="unsubmitted", stages=[], train={})
        return known.model_copy(update={"lost": message, "gone": gone, "now": time.time()})

    def _usage_of(self, number: int, facts: Facts) -> Usage | None:
        """Reads all metrics, so only when a file of the run is another."""
        stamp = self._readers[number].stamp(), _words(facts)
        before, usage = self._used.get(number, (None, None))
        if before != stamp:
            try:
                usage = usage_of(self.runs[number])
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                usage = None  # rows that this version does not understand
        self._used[number] = stamp, usage
        return usage

    @property
    def all_done(self) -> bool:
        """Are all tasks that were submitted done by their own words? Then Slurm has nothing to add."""
        return all(_all_done(facts) for facts, _ in self._known.values())

    def ask(self, max_age_s: float) -> bool:
        """Ask Slurm, unless somebody else has done so in the last `max_age_s` seconds. May take a minute.

        Has anything changed about the jobs of these runs?
        """
        before = self.snapshot
        if self.queue is not None:
            self.snapshot = self.queue.look(max_age_s, self._open)
        return not self.snapshot.same_as(before, self._jobs)


def look_at(
    runs: Sequence[RunDir], max_age_s: float = 0.0, tolerant: bool = False, detailed: bool = True
) -> list[RunState]:
    """The states of `runs` now, with at most one squeue for all of them; none if an answer of `max_age_s` is there, or
    if all that was submitted is done.

    Raises ClusterError when Slurm does not answer, unless `tolerant`: then the states say so.
    """
    look = Look(runs)
    look.states(())
    if not look.all_done:
        look.ask(max_age_s)
    if look.snapshot.problem and not tolerant:
        raise ClusterError(look.snapshot.problem, "try again when Slurm answers")
    return look.states(None if detailed else ())


def _all_done(facts: Facts) -> bool:
    """What has failed may have been submitted anew; what is done is never."""
    done = {(said.stage, said.index) for said in facts.statuses if said.state == "done"}
    return all((name, index) in done for name, job in facts.submitted.items() for index in range(job.tasks))


def _as_before(before: Facts, after: Facts) -> bool:
    """Is there nothing new, and nothing that time alone changes?"""
    if any(status.state == "running" for status in after.statuses):
        return False
    names = ("plan", "submitted", "statuses", "queue", "driver_alive", "cancelled", "hands_off", "train", "problem")
    return all(getattr(before, name) == getattr(after, name) for name in (*names, "unseen", "as_of", "details"))


def _words(facts: Facts) -> list[tuple[str, int, str, int, str]]:
    """What tasks say that they are in, not how far they are."""
    return [(said.stage, said.index, said.state, said.restart, said.job_id) for said in facts.statuses]
