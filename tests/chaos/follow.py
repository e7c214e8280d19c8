"""Follows a run through its files, many times a second: what was done at most is known even after it was rewound."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcsft.records import read_jsonl
from hpcsft.rundir import RunDir

POLL_S = 0.04
TAIL_BYTES = 4096
FRESH_S = 2.0
"""A folder of a save that failed may stay for longer."""


@dataclass(frozen=True)
class Resumption:
    """An attempt that went on where an earlier one had ended."""

    job_id: str
    restart: int
    time: str
    step: int
    """Step that it loaded; 0: it began anew."""
    before: int
    """The last step that the attempts before it were seen to have done."""
    told_lost: int
    """What the run itself says was lost."""
    saved: int
    """Step of the checkpoint that was published, or loaded, last."""
    noticed: bool
    """Had the last attempt that trained been asked to stop?"""

    @property
    def lost(self) -> int:
        """Steps that are done again."""
        return self.before - self.step


class Follower:
    """Reads metrics.jsonl and the journal of training in a thread of its own, until `close`."""

    def __init__(self, run: RunDir):
        self.run = run
        self.journal: list[dict[str, Any]] = []
        self.resumptions: list[Resumption] = []
        self.step = 0
        """The last step of the newest attempt."""
        self.step_time = ""
        """When the newest attempt did its last step; empty before its first."""
        self.highest = 0
        """The last step that any attempt has done."""
        self._journal_size = -1
        self._before = 0
        self._since = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._closed.set()
        self._thread.join()

    @property
    def done(self) -> bool:
        """Has training come to its end?"""
        return any(row["event"] == "done" for row in self.journal)

    def events(self, event: str) -> list[dict[str, Any]]:
        """The journal's rows of one kind."""
        return [row for row in self.journal if row["event"] == event]

    def published_steps(self) -> list[int]:
        """Steps of the checkpoints that are there now, the newest first."""
        names = [path.name for path in self.run.checkpoints.glob("step-*") if (path / "complete.json").exists()]
        return sorted((int(name.removeprefix("step-")) for name in names), reverse=True)

    def saving(self) -> bool:
        """Is the newest attempt writing a checkpoint?"""
        newest = self.events("start")[-1]
        staging = self.run.checkpoints / f".staging-{newest['job_id']}_{newest['restart']}"
        return any(_age_s(folder) < FRESH_S for folder in staging.glob("step-*"))

    def _loop(self) -> None:
        while not self._closed.wait(POLL_S):
            self._read_metrics()  # first: what it shows was done before anything that the journal shows next
            self._read_journal()

    def _read_metrics(self) -> None:
        row = last_row(self.run.metrics)
        if row and row["time"] > self._since:
            self.step, self.step_time = row["step"], row["time"]
            self._before = max(self._before, self.step)
            self.highest = max(self.highest, self.step)

    def _read_journal(self) -> None:
        file = self.run.journal_file("train", 0, 1)
        size = file.stat().st_size if file.exists() else -1
        if size == self._journal_size:
            return
        self._journal_size = size
        known = len(self.journal)
        self.journal = list(read_jsonl(file))
        for place in range(known, len(self.journal)):
            row = self.journal[place]
            if row["event"] == "resumed":
                self.resumptions.append(self._resumption(row, self.journal[:place]))
                self._before, self._since = row["step"], row["time"]
                self.step, self.step_time = row["step"], ""

    def _resumption(self, row: dict[str, Any], earlier: list[dict[str, Any]]) -> Resumption:
        attempts = [(one["job_id"], one["restart"]) for one in earlier if one["event"] == "resumed"]
        mine = (row["job_id"], row["restart"])
        previous = next((attempt for attempt in reversed(attempts) if attempt != mine), None)
        noticed = any(one["event"] == "notice" and (one["job_id"], one["restart"]) == previous for one in earlier)
        saved = next((one["step"] for one in reversed(earlier) if one["event"] in ("saved", "resumed")), 0)
        return Resumption(
            *mine, row["time"], row["step"], max(self._before, row["step"]), row.get("lost_steps", 0), saved, noticed
        )


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # published
        return float("inf")


def last_row(path: os.PathLike[str]) -> dict[str, Any] | None:
    """The last whole line of a JSONL file that may be growing; None if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            return json.loads(line)
        except ValueError:
            continue
    return None
