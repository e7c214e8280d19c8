"""The end of the job's time limit, seen coming: early enough for the step in progress and a save, as measured.

Slurm's own signal ahead of the limit comes at a time that was guessed before the first step ran.
"""

from __future__ import annotations

import time
from datetime import datetime

from hpcsft.attempt.identity import TaskIdentity
from hpcsft.errors import ClusterError
from hpcsft.slurm_client import query_job, told_end_s

MARGIN_S = 15.0
"""For the way from the published checkpoint to the end of srun."""
FIRST_SAVE_S = 60.0
"""How long a save is taken for before the first one was measured."""


class TimeLimit:
    """When the job must stop. Used by rank 0; without Slurm there is no limit."""

    def __init__(self, task: TaskIdentity):
        self.task = task
        self.end = self._ask() if task.token.in_slurm else None
        self.longest_step_s = 0.0
        self.most_s = self._remaining_s() / 2 if self.end else 0.0
        """However long a save takes, half of the job's time is for training."""

    def observe_step(self, seconds: float) -> None:
        """Learn from a step. What a step takes includes what a background write or a busy node adds."""
        self.longest_step_s = max(self.longest_step_s, seconds)

    def lead_s(self, longest_save_s: float) -> float:
        """Seconds before the end at which no further step may begin."""
        return min(self.most_s, 2 * self.longest_step_s + 1.5 * (longest_save_s or FIRST_SAVE_S) + MARGIN_S)

    def is_near(self, longest_save_s: float) -> bool:
        """Is it time to stop? Before it says so it asks Slurm again: the limit may have been raised."""
        lead_s = self.lead_s(longest_save_s)
        if self.end is None or self._remaining_s() > lead_s:
            return False
        self.end = self._ask() or self.end
        return self._remaining_s() <= lead_s

    def _remaining_s(self) -> float:
        assert self.end is not None
        return self.end - time.time()

    def _ask(self) -> float | None:
        """Seconds since the epoch; None without a limit or an answer.

        Where Slurm's clients are missing, as in a container, it is what the batch script was told at its start.
        """
        try:
            facts = query_job(self.task.job_id)
        except ClusterError:
            return told_end_s()
        return datetime.timestamp(facts.end_time) if facts and facts.end_time else None
