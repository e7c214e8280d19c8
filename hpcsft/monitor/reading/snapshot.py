"""What Slurm says of all jobs of this user, and of others whose runs are looked at: one squeue, asked for by one of all
monitors on this host.

RUNS_DIR/.cache/queue/HOST-UID-HASH.json   the last answer; a monitor that finds one young enough does not ask

sacct is asked only about jobs that squeue has forgotten while nothing in their run directory tells how they ended, once
for each, and never again where the cluster keeps no accounts. When Slurm does not answer, the last answer stays, with
its time and the reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from hpcsft.errors import ClusterError
from hpcsft.owner import Owner, ThisCluster, this_cluster, this_user, why_unseen
from hpcsft.records import Record, read_json, write_json
from hpcsft.rundir import RunDir
from hpcsft.slurm_queue import NO_ACCOUNTS, QueueEntry, parse_past, parse_queue, read_past, read_queue

IDS_PER_SACCT = 1000
"""A command line has an end."""
MOST_PAST = 20_000
"""So many ended jobs are remembered."""


class Answer(Record):
    """What squeue and sacct printed; the document of the cache."""

    time: float = 0.0
    """When squeue answered, in seconds since the epoch; 0: never."""
    queue: str = ""
    past: dict[str, str] = {}
    """Job id -> sacct's lines about it, once it has ended; empty text for one that sacct does not know."""
    accounts: bool = True
    """Does the cluster keep any?"""
    problem: str | None = None
    """Why there is nothing newer than `time`."""
    asked: float = 0.0
    """When squeue was asked last, whether it answered or not."""
    here: tuple[str, str | None, bool] | None = None
    """The fields of ThisCluster; None where nobody needed to know."""


class Snapshot:
    """The jobs of one answer, by job id."""

    def __init__(self, answer: Answer):
        self.time = answer.time
        self.asked = answer.asked
        self.problem = answer.problem
        self.known = answer.time > 0
        """Has Slurm ever answered?"""
        self.here = ThisCluster(*answer.here) if answer.here else None
        """The cluster that answers here; None if that is not known."""
        self._by_job: dict[str, list[QueueEntry]] = {}
        for entry in parse_queue(answer.queue):
            self._by_job.setdefault(entry.job_id, []).append(entry)
        for job_id, lines in answer.past.items():  # squeue's word is the newer one
            if job_id not in self._by_job and (ended := parse_past(lines)):
                self._by_job[job_id] = ended

    def entries(self, job_ids: Iterable[str]) -> list[QueueEntry]:
        """What Slurm says of these jobs; of an array every task that it names."""
        return [entry for job_id in job_ids for entry in self._by_job.get(job_id, ())]

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._by_job

    def same_as(self, other: Snapshot, job_ids: Collection[str]) -> bool:
        """Is all about these jobs as in `other`, but for the time that has passed?"""
        return self.problem == other.problem and self._lasting(job_ids) == other._lasting(job_ids)

    def _lasting(self, job_ids: Collection[str]) -> list[tuple[str, int, str, str, str]]:
        entries = self.entries(sorted(job_ids))
        return [(entry.job_id, entry.index, entry.state, entry.reason, entry.nodes) for entry in entries]


NOTHING = Snapshot(Answer())
"""Before Slurm has been asked."""


class SharedQueue:
    """Slurm's answers for the monitors of `runs`, which are those of `owners`."""

    def __init__(self, runs: Sequence[RunDir], owners: Collection[Owner] = ()):
        self.owners = owners
        others = sorted({owner.user for owner in owners if owner.user} - {this_user()})
        cluster = "\n".join([*(os.environ.get(name, "") for name in ("SLURM_CONF", "SLURM_CLUSTERS")), *others])
        name = f"{socket.gethostname()}-{os.getuid()}-{hashlib.sha256(cluster.encode()).hexdigest()[:8]}.json"
        self.files = list(dict.fromkeys(run.queue_cache / name for run in runs))
        self.answer = Answer()
        self.snapshot = NOTHING

    def look(self, max_age_s: float, open_jobs: Collection[str]) -> Snapshot:
        """An answer that is at most `max_age_s` seconds old: another monitor's, or a new one.

        `open_jobs` are the jobs whose end nobody has told yet. If Slurm does not answer, the last answer is returned,
        with its problem.
        """
        for file in self.files:
            with contextlib.suppress(OSError, ValueError):  # none there yet, or one of another version
                found = Answer.model_validate(read_json(file))
                if found.asked > self.answer.asked:
                    self._take(found)
        old = abs(time.time() - self.answer.asked) >= max_age_s  # a clock that was set back makes nothing younger
        if old or (self._lost() and not self.answer.problem):
            self._ask_queue()
            self._ask_past(open_jobs)
            self._share()
        elif self._ask_past(open_jobs):
            self._share()
        return self.snapshot

    def _take(self, answer: Answer) -> None:
        self.answer, self.snapshot = answer, Snapshot(answer)

    def _ask_queue(self) -> None:
        asked: dict[str, Any] = {"asked": time.time()}
        try:
            if self._lost():
                asked["here"] = this_cluster()
            told = {"queue": read_queue(self._users(asked)), "time": asked["asked"], "problem": None}
            self._take(self.answer.model_copy(update=asked | told))
        except (ClusterError, ValueError) as error:
            problem = error.message if isinstance(error, ClusterError) else "squeue prints what is not understood"
            self._take(self.answer.model_copy(update={**asked, "problem": problem}))

    def _lost(self) -> bool:
        """Is it not known which cluster this is, while that decides whose jobs the answer is about?"""
        return self.answer.here is None and any(owner.cluster_name for owner in self.owners)

    def _users(self, asked: Mapping[str, Any]) -> list[str]:
        """Whose jobs squeue is asked for: this user's, and those of others that it would show; [] for --me alone."""
        told = asked.get("here", self.answer.here)
        here = ThisCluster(*told) if told else None
        others = {owner.user for owner in self.owners if owner.user and here and not why_unseen(owner, here)}
        return sorted(others | {this_user()}) if others - {this_user()} else []

    def _ask_past(self, open_jobs: Collection[str]) -> bool:
        """Ask how those jobs ended that squeue has forgotten. Was anything asked?"""
        known = self.snapshot.known and self.answer.problem is None and self.answer.accounts
        missing = sorted(job for job in open_jobs if job not in self.snapshot and job not in self.answer.past)
        if not (known and missing):
            return False
        told = dict.fromkeys(missing, "")
        try:
            for first in range(0, len(missing), IDS_PER_SACCT):
                for line in read_past(missing[first : first + IDS_PER_SACCT]).splitlines(keepends=True):
                    job_id = re.split("[_+|]", line, maxsplit=1)[0]
                    told[job_id] = told.get(job_id, "") + line
            going = {entry.job_id for entry in parse_past("".join(told.values())) if entry.alive}
        except ClusterError as error:  # accounts that do not answer now are asked with the next squeue
            if NO_ACCOUNTS in error.message:
                self._take(self.answer.model_copy(update={"accounts": False}))
            return True
        except ValueError:  # sacct prints what is not understood
            return True
        past = {**self.answer.past, **{job: lines for job, lines in told.items() if job not in going}}
        self._take(self.answer.model_copy(update={"past": dict(list(past.items())[-MOST_PAST:])}))
        return True

    def _share(self) -> None:
        for file in self.files:
            with contextlib.suppress(OSError):  # a full or read-only filesystem: then everybody asks for themselves
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_json(file, self.answer)
