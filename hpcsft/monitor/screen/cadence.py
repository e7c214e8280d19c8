"""How often Slurm is asked. Pure but for the dice."""

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


class Cadence:
    """The pause until the next question: `base_s`, growing as long as nothing changes."""

    def __init__(self, base_s: float):
        self.base_s = base_s
        self.pause_s = base_s

    def changed(self) -> None:
        """Something has changed: go back to the beginning."""
        self.pause_s = self.base_s

    def unchanged(self) -> None:
        """Nothing has changed since the last question."""
        self.pause_s = max(self.base_s, min(LONGEST_S, self.pause_s * GROWTH))

    def next_s(self) -> float:
        """Seconds from one answer to the next question."""
        return self.pause_s * random.uniform(1 - JITTER, 1 + JITTER)
