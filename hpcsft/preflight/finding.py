"""What a check has found: what, where, why, and what to do."""

from __future__ import annotations

from typing import Literal

from hpcsft.records import Record

Level = Literal["error", "warning", "note"]


class Finding(Record):
    """One thing that a check has found. Errors stop a submission, warnings do not, notes are good to know."""

    level: Level
    where: str
    """The field of the spec, such as cluster.train.partition, or what it is about: a path, slurm."""
    message: str
    """What is wrong and why, with what was given and what is allowed."""
    hint: str | None = None
    """What to do."""
    forcible: bool = False
    """May the user overrule this error with --force? Where the cluster would refuse or the run surely fail: no."""

    def lines(self) -> list[str]:
        """As commands print it: `error: where: message`, and `hint: ...`."""
        where = f"{self.where}: " if self.where else ""
        return [f"{self.level}: {where}{self.message}"] + ([f"hint: {self.hint}"] if self.hint else [])
