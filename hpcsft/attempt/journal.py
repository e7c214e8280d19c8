"""attempts/STAGE[-INDEX].jsonl: everything that befell one task, one line per event.

start     an attempt began                    resumed   training goes on from `step`; `lost_steps` are done again
notice    a signal came                       saved     a checkpoint of `step` was published
stopped   it stopped with everything kept     failed    a rank said why it cannot go on
end       why the attempt ended, what it had committed, and whether the task was queued again
done      the task is done
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
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
        token = token or self.token
        row = {
            "time": now(),
            "event": event,
            "stage": self.stage,
            "index": self.index,
            "job_id": token.job_id,
            "restart": token.restart,
            "host": socket.gethostname(),
        }
        append_jsonl(self.file, {**row, **{key: value for key, value in facts.items() if value is not None}})

    def rows(self) -> list[Row]:
        """All lines, the oldest first."""
        return list(read_jsonl(self.file))

    def of_submission(self) -> list[Row]:
        """The lines of this job, restarts included: a job that was submitted anew starts with fresh budgets."""
        return [row for row in self.rows() if row["job_id"] == self.token.job_id]

    def of_attempt(self, token: Token | None = None) -> list[Row]:
        """The lines of one attempt."""
        token = token or self.token
        return [row for row in self.rows() if (row["job_id"], row["restart"]) == (token.job_id, token.restart)]

    def num_attempts(self) -> int:
        """Attempts that have started, over all submissions."""
        return sum(row["event"] == "start" for row in self.rows())

    def end(self, cause: str, committed: int, token: Token | None = None, **facts: Any) -> None:
        """Say why an attempt ended and how much was committed by then (steps, or items of the stage)."""
        before = max((row["committed"] for row in self.rows() if row["event"] == "end"), default=0)
        self.write("end", token, cause=cause, committed=committed, committed_before=before, **facts)


def all_rows(run: RunDir, stage: str) -> list[Row]:
    """The journals of all tasks of a stage."""
    return [row for file in sorted(run.attempts.glob(f"{stage}*.jsonl")) for row in read_jsonl(file)]


def last(rows: list[Row], event: str) -> Row | None:
    """The newest line of one kind."""
    return next((row for row in reversed(rows) if row["event"] == event), None)
