"""attempts/STAGE[-INDEX].jsonl: everything that befell one task, one line per event.

start        an attempt began                    resumed   training goes on from `step`; `lost_steps` are done again
notice       a signal came                       saved     a checkpoint of `step` was published
stopped      it stopped with everything kept     failed    a rank said why it cannot go on
micro_batch  each is computed in `parts`         end       why the attempt ended, and whether it had kept anything new
done         the task is done                    ready     training begins; what the time until then went into
unfit        the check found `nodes` unfit           excluded  the next attempt does without `nodes`, unless `refused`

An attempt's own last row (done, stopped, failed) has the most memory that its process had resident, `memory_gb` in 10^9
bytes; `ready` has `gpu_total_gb`, the memory of a GPU. `start` has `last_seen`, the newest word of the attempt before.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from hpcsft.attempt.fence import Token
from hpcsft.records import append_jsonl, now, read_jsonl
from hpcsft.rundir import RunDir

Row = Mapping[str, Any]


class Journal:
    """The journal of one task, with the attempt that writes now."""

    def __init__(self, run: RunDir, stage: str, index: int, tasks: int, token: Token):
        self.stage = stage
        self.index = index
        self.file = run.journal_file(stage, index, tasks)
        self.token = token

    def write(self, event: str, token: Token | None = None, **facts: Any) -> None:
        """Add one line, about this attempt or about `token`."""
        self.append(self.row(event, token, **facts))

    def append(self, row: Row) -> None:
        """Add a line that `row` has made."""
        append_jsonl(self.file, row)

    def row(self, event: str, token: Token | None = None, **facts: Any) -> Row:
        """One line as it would be written."""
        token = token or self.token
        row = {
            "time": now(),
            "event": event,
            "stage": self.stage,
            "index": self.index,
            "job_id": token.job_id,
            "restart": token.restart,
            "host": socket.gethostname(),
            "node": os.environ.get("SLURMD_NODENAME"),  # its name in Slurm, which may be another than the host's
        }
        return {key: value for key, value in {**row, **facts}.items() if value is not None}

    def rows(self) -> list[Row]:
        """All lines, the oldest first."""
        return list(read_jsonl(self.file))

    def of_submission(self) -> list[Row]:
        """The lines of this job, restarts included: a job that was submitted anew starts with fresh budgets."""
        return [row for row in self.rows() if row["job_id"] == self.token.job_id]

    def of_attempt(self) -> list[Row]:
        """The lines of this attempt."""
        return [row for row in self.of_submission() if row["restart"] == self.token.restart]


def all_rows(run: RunDir, stage: str) -> list[Row]:
    """The journals of all tasks of a stage."""
    return [row for file in sorted(run.attempts.glob(f"{stage}*.jsonl")) for row in read_jsonl(file)]


def last(rows: Sequence[Row], event: str) -> Row | None:
    """The newest line of one kind."""
    return next((row for row in reversed(rows) if row["event"] == event), None)
