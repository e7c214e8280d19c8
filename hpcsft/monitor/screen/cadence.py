"""When Slurm is asked, and when files are read. Pure but for the dice."""

from __future__ import annotations

import random

TERMINAL_S = 15.0
PIPE_S = 60.0
LONGEST_S = 180.0
"""After long silence of the queue."""
SHORTEST_S = 2.0
"""Not even a person or a change makes it more often."""
GROWTH = 1.5
JITTER = 0.1
"""So that monitors of many users do not ask in step."""


FILES_S = 1.0
"""Files are read so often,"""
SHARE = 0.02
"""and where there are many, never for more than this share of the time."""


def pause_of_files_s(took_s: float) -> float:
    """How long files are left alone after a look at them that took so long."""
    return max(FILES_S, took_s / SHARE)


class Cadence:
    """The pauses between questions: `base_s`, growing as long as nothing changes.

    Times are seconds since the epoch.
    """

    def __init__(self, base_s: float):
        self.base_s = base_s
        self.pause_s = base_s
        self.wanted = 0.0
        """An answer from before this moment is too old: something has happened since."""
        self._jitter = random.uniform(1 - JITTER, 1 + JITTER)

    def want(self, now: float) -> None:
        """Something has happened, or a person asks: go back to the beginning, with an answer that is newer."""
        self.pause_s, self.wanted = self.base_s, now

    def answered(self, changed: bool) -> None:
        """There is an answer; has anything changed since the one before?"""
        self.pause_s = self.base_s if changed else max(self.base_s, min(LONGEST_S, self.pause_s * GROWTH))
        self._jitter = random.uniform(1 - JITTER, 1 + JITTER)

    def due(self, asked: float, now: float) -> bool:
        """Is it time for the next question, if the last one was at `asked`?"""
        pause_s = SHORTEST_S if self.wanted > asked else self.pause_s * self._jitter
        return abs(now - asked) >= pause_s  # a clock that was set back stops nothing

    def max_age_s(self, asked: float, now: float) -> float:
        """How old an answer to somebody else's question may be, to do instead."""
        return max(0.0, now - self.wanted) if self.wanted > asked else self.pause_s / 2
