"""What all ranks agree on between two steps, in one all-reduce: to stop, to save, that a checkpoint is written."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import NamedTuple

from hpcsft.errors import Fenced
from hpcsft.stage import StageContext
from hpcsft.train.checkpoints import Checkpointer
from hpcsft.train.distributed import Ranks
from hpcsft.train.timelimit import TimeLimit


class Boundary(NamedTuple):
    """The same on all ranks."""

    stop: bool
    """Was any of them asked to stop?"""
    due: bool
    """Has checkpoint.every_minutes passed?"""
    written: bool
    """Have all of them written their part of a pending checkpoint?"""


@dataclass
class Agreement:
    """Asks this rank's signals, clock and fence, and then all ranks."""

    context: StageContext
    ranks: Ranks
    checkpoints: Checkpointer
    time_limit: TimeLimit | None
    """On rank 0 only."""

    def reach(self, saved_at_s: float = math.inf, *values: float) -> tuple[Boundary, list[float]]:
        """The boundary, and each of `values` summed over all ranks. `saved_at_s`: when the last save began (monotonic).

        Raises Fenced on all of them if a newer attempt has begun.
        """
        minutes = self.context.spec.train.checkpoint.every_minutes
        late = minutes is not None and time.monotonic() - saved_at_s >= minutes * 60
        if self.time_limit and self.time_limit.is_near(self.checkpoints.longest_s):
            self.context.notice.request("time limit")
        lost = self.ranks.leader and self.context.fence.taken_over()
        flags = (self.context.notice.requested is not None, late, not self.checkpoints.written, lost)
        stop, due, unwritten, fenced, *sums = self.ranks.sum(*map(float, flags), *values)
        if fenced:
            raise Fenced("a newer attempt has taken over", "nothing to do: Slurm has given this one up")
        return Boundary(stop > 0, due > 0, unwritten == 0), sums
