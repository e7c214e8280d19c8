"""Fencing: of all attempts at one task, only the newest may publish.

A node that Slurm has given up may live on, and with it the ranks of an attempt whose job was started again elsewhere.
The newest attempt writes its token (job id and restart count) into one file; before every publish an attempt looks
whether the token is still its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from hpcsft.errors import EXIT_FAILED, Fenced
from hpcsft.records import Record, Submission, read_json, write_json
from hpcsft.rundir import RunDir

MARK_VARIABLE = "HPCSFT_SUBMISSION"
"""In a job's environment: the mark of the submission that made it."""
PATIENCE_S = 75.0
"""So long a node may be shown a submission.json from before a resume: a shared filesystem may keep what it knows of a
file for a minute."""
INTERVAL_S = 2.0


class Token(Record):
    """Which attempt it is."""

    job_id: str
    restart: int

    @property
    def in_slurm(self) -> bool:
        """Does Slurm know this job?"""
        return self.job_id.split("_")[0].isdigit()

    def __str__(self) -> str:
        return f"{self.job_id}_{self.restart}"


class Fence:
    """The token of one attempt and the file that names the newest one."""

    def __init__(self, run: RunDir, stage: str, index: int, tasks: int, token: Token):
        self.run = run
        self.stage = stage
        self.file: Path = run.fence_file(stage, index, tasks)
        self.token = token

    def claim(self) -> None:
        """Take the task over from every earlier attempt. Raises Fenced if this one is not the newest itself."""
        if self.is_stale():
            raise self._fenced()
        write_json(self.file, self.token)

    def check(self) -> None:
        """Raises Fenced if a newer attempt has taken the task over."""
        if self.taken_over():
            raise self._fenced()

    def newest(self) -> Token | None:
        """The token in the file; None before the first claim. RunNotFoundError if the whole run has gone."""
        try:
            return Token.model_validate(read_json(self.file))
        except FileNotFoundError:
            self.run.refuse_if_gone()
            return None

    def is_stale(self) -> bool:
        """Is this attempt older than one that has claimed the task, or of a job that another has taken the place of?

        That is one that was submitted anew, or one that Slurm took without an answer, and that was not found. A job
        that nobody seems to know of looks again for PATIENCE_S before it believes that.
        """
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            newest = self.newest()
            if newest and newest.job_id == self.token.job_id and newest.restart > self.token.restart:
                return True
            submission = self.run.read_submission()
            jobs = [job.job_id for job in submission.jobs if job.stage == self.stage] if submission else []
            mine = self.token.job_id.split("_")[0]
            if mine in jobs or not self.token.in_slurm:
                return mine in jobs and jobs[-1] != mine
            if not self._unknown(submission, jobs):
                return False
            if time.monotonic() >= deadline_s:
                return True
            time.sleep(INTERVAL_S)

    def _unknown(self, submission: Submission | None, jobs: Sequence[str]) -> bool:
        """Does a submission that names other `jobs` of this stage know nothing of this one?"""
        intent = submission.intent if submission else None  # sbatch has answered, but its answer is not written yet
        meant = intent is not None and intent.mark == os.environ.get(MARK_VARIABLE)
        return bool(jobs) and not meant

    def lost(self, begun: bool) -> bool:
        """Has another attempt taken over? One that has not `begun` is only too late if it is older than the newest."""
        return self.is_stale() or (begun and self.taken_over())

    def taken_over(self) -> bool:
        """Has another attempt claimed the task since this one did? One small file is read."""
        return self.newest() not in (None, self.token)

    def _fenced(self) -> Fenced:
        newest = self.newest()
        message = f"attempt {self.token} is not the newest any more: {newest} has taken over"
        if newest is None:
            message = f"job {self.token.job_id} is not the one that was submitted for {self.stage}: nobody waits for it"
        if newest is None or newest.job_id != self.token.job_id:
            error = Fenced(message, "nothing to do: it was submitted anew, or started by hand, and goes on there")
            error.exit_code = EXIT_FAILED  # Slurm has not given this job up: it may end, and has to
            return error
        return Fenced(message, "nothing to do: this is a leftover of an attempt that Slurm has given up")
