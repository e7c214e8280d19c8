"""metrics.jsonl and validation.jsonl: one line per step, one per validation, each step once however often it ran."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpcsft.records import append_jsonl, now, read_jsonl, write_text
from hpcsft.rundir import RunDir


class MetricsLog:
    """Writes the two files; used by rank 0 only."""

    def __init__(self, run: RunDir):
        self.run = run

    def rewind(self, step: int) -> None:
        """Forget what an earlier attempt wrote after `step`: that is done again. From 0 on, everything is."""
        for path in (self.run.metrics, self.run.validation):
            rows = list(read_jsonl(path))
            kept = [row for row in rows if row["step"] <= step] if step else []
            if len(kept) != len(rows):
                _rewrite(path, kept)

    def step(self, **values: Any) -> None:
        """One optimizer step."""
        append_jsonl(self.run.metrics, {**values, "time": now()})

    def validation(self, **values: Any) -> None:
        """The validation loss of one checkpoint."""
        append_jsonl(self.run.validation, {**values, "time": now()})


def _rewrite(path: Path, rows: list[Any]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
