"""metrics.jsonl and validation.jsonl: one line per step, one per validation, each step once however often it ran.

Trackers (TensorBoard, W&B) follow these files and hold nothing that is not in them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hpcsft.records import append_jsonl, now, read_jsonl, write_text
from hpcsft.rundir import RunDir
from hpcsft.train.trackers import Trackers


class MetricsLog:
    """Writes the two files; used by rank 0 only. Lines that a full disk refuses are kept and written later."""

    def __init__(self, run: RunDir):
        self.run = run
        self._unwritten: list[tuple[Path, dict[str, Any]]] = []
        self._trackers = Trackers([])

    def rewind(self, step: int) -> int:
        """Forget what an earlier attempt wrote after `step`: that is done again. From 0 on, everything is.

        Returns how many steps are done again.
        """
        _rewind(self.run.validation, step)
        return _rewind(self.run.metrics, step)

    def start_trackers(self, names: Collection[str]) -> None:
        """Show everything from the first step on in the trackers `names`. After `rewind`: they never read back.

        Raises StageError if a package is missing.
        """
        self._trackers = Trackers.start(names, self.run)

    def close(self, finished: bool) -> None:
        """End the trackers: training is over, or else another attempt will go on."""
        self._trackers.close(finished)

    def step(self, **values: Any) -> None:
        """One optimizer step."""
        self._add(self.run.metrics, values)

    def validation(self, **values: Any) -> None:
        """The validation loss of one checkpoint."""
        self._add(self.run.validation, values)

    def validated(self, epoch: int) -> bool:
        """Is the validation loss after `epoch` known?"""
        return any(row["epoch"] == epoch for row in read_jsonl(self.run.validation))

    def skipped_steps(self) -> int:
        """How many of the steps so far were passed over, because they were not finite."""
        return sum("skipped" in row for row in read_jsonl(self.run.metrics))

    def flush(self) -> None:
        """Write what could not be written before. Raises OSError if it still cannot."""
        while self._unwritten:
            append_jsonl(*self._unwritten[0])
            del self._unwritten[0]
        self._trackers.look()

    def _add(self, path: Path, values: dict[str, Any]) -> None:
        self._unwritten.append((path, {**values, "time": now()}))
        with contextlib.suppress(OSError):
            self.flush()


def _rewind(path: Path, step: int) -> int:
    rows = list(read_jsonl(path))
    kept = [row for row in rows if row["step"] <= step] if step else []
    if len(kept) != len(rows):
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
    return len(rows) - len(kept)
