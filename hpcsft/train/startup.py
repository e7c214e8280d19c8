"""What the time from the start of a rank to its first step went into: the GPUs of all ranks wait for it."""

from __future__ import annotations

import os
import time
from pathlib import Path


class Startup:
    """Divides the start of this process into phases, one after the other."""

    def __init__(self) -> None:
        self.phases_s: dict[str, float] = {}
        """Seconds of each phase."""
        self._since_s = _process_start_s()

    def done(self, phase: str) -> None:
        """`phase` is over; it began where the one before ended, the first with the process."""
        moment_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.phases_s[phase] = round(moment_s - self._since_s, 2)
        self._since_s = moment_s

    def __str__(self) -> str:
        parts = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in self.phases_s.items())
        return f"ready after {sum(self.phases_s.values()):.1f} s: {parts}"


def _process_start_s() -> float:
    """When this process began, in seconds since the machine did (proc(5): field 22 of stat, in clock ticks)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")
