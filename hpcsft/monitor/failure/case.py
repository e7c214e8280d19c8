"""What is known about the end of one task, before it is named. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hpcsft.attempt.causes import CAUSES
from hpcsft.attempt.journal import last
from hpcsft.attempt.outcome import decisive_failure
from hpcsft.monitor.failure.signs import FAILED_NODE, HUNG, LED_BY_RANK, SRUN
from hpcsft.records import StageStatus

GENERIC = {cause.hint for cause in CAUSES.values()}
"""Hints that every failure of a cause gets."""


class Case(NamedTuple):
    """What is known about one end."""

    run_dir: str
    stage: str
    status: StageStatus | None
    cause: str | None
    """As the journal calls it."""
    told: str | None
    """What the rank said, else what the task or the monitor says."""
    summary: str | None
    """What the task or the monitor says."""
    own_hint: str | None
    """What was advised about this very failure."""
    line: str | None
    """The line that decided, without the rank before it."""
    rank: int | None
    host: str | None
    ranks: int
    """How many there are."""
    began: bool
    """Did hpcsft itself come to say anything?"""
    trained: bool
    """Had training begun?"""
    failed: bool
    """Did a rank say why it cannot go on?"""
    slurm_state: str | None

    @property
    def foreseen(self) -> bool:
        """Is it an error that hpcsft raises on purpose?"""
        said_so = self.line is not None and self.line.startswith("error: ")
        return said_so or (self.failed and self.own_hint is not None)

    @property
    def where(self) -> str:
        """Which rank on which node, for the end of a title."""
        named = self.rank is not None and (self.ranks > 1 or self.rank > 0)
        return (f", rank {self.rank}" if named else "") + (f" on {self.host}" if self.host and named else "")

    @property
    def when(self) -> str:
        """In which step a rank of training failed, if it said so."""
        progress = self.status.progress if self.status else None
        if not self.failed or self.stage != "train":
            return ""
        if not self.trained:
            return ", before the first step"
        return f", in step {progress.done + 1}" if progress and progress.unit == "steps" else ""


def make_case(
    run_dir: str,
    stage: str,
    status: StageStatus | None,
    rows: Sequence[Mapping[str, Any]],
    slurm_state: str | None,
    message: str | None,
    line: str | None,
) -> Case:
    """Put together what the journal's `rows`, the task's status, Slurm and the deciding `line` say."""
    failed, end, start = decisive_failure(rows), last(rows, "end"), last(rows, "start")
    line = line or ""
    ranks = int(start.get("world_size", 1)) if start else 1
    host = failed.get("host") if failed else status.host if status and ranks == 1 else None
    rank = failed.get("rank") if failed else None
    if ended := SRUN.match(line):
        rank, host = int(ended["rank"]), ended["host"]
    elif node := FAILED_NODE.match(line):
        rank, host = None, node[1]
    elif rank is None and (named := LED_BY_RANK.match(line) or HUNG.match(line)):
        rank = int(named[1])
    if end and end["cause"] == "bad_node":  # which the rank that told it need not be on
        rank, host = None if last(rows, "unfit") else rank, ",".join(end.get("unfit", ()))
    summary = (status.message if status else None) or message
    hint = (status.hint if status else None) or (failed.get("hint") if failed else None)
    own_hint = hint if hint and hint not in GENERIC else None
    return Case(
        run_dir=run_dir,
        stage=stage,
        status=status,
        cause=end["cause"] if end else failed["cause"] if failed else None,
        told=(failed.get("message") if failed else None) or summary,
        summary=summary,
        own_hint=own_hint and own_hint.replace("RUN_DIR", run_dir),
        line=LED_BY_RANK.sub("", line, count=1) or None,
        rank=rank,
        host=host or None,
        ranks=ranks,
        began=start is not None or failed is not None,
        trained=last(rows, "ready") is not None or last(rows, "resumed") is not None,
        failed=failed is not None,
        slurm_state=slurm_state,
    )
