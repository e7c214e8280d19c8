"""How training does, from metrics.jsonl, validation.jsonl and checkpoints/. It only reads, and never a whole file."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from hpcsft.monitor.reading.files import Files
from hpcsft.records import read_json, read_jsonl
from hpcsft.rundir import RunDir

TAIL_BYTES = 262_144
"""About 800 steps: enough for the sparkline and the pace."""
LAST_BYTES = 4_096
"""A few steps: enough to tell where training is."""
PACE_STEPS = 100
"""The pace is that of so many last steps of an attempt."""


def read_training(run: RunDir, files: Files, whole: bool, since: float = 0.0) -> dict[str, Any]:
    """The last step's metrics; with `whole` also recent losses, validation losses, pace and newest checkpoint.

    Empty before training. The pace is that of the attempt that began at `since`, in seconds since the epoch.
    """
    rows = files.read(run.metrics, _tail if whole else _end) or []
    facts: dict[str, Any] = dict(rows[-1]) if rows else {}
    if not whole:
        return facts
    validation = files.read(run.validation, _losses) or []
    if not rows and not validation:
        return {}
    facts["losses"] = [row["loss"] for row in rows if row.get("loss") is not None]
    facts["pace_s"] = pace_s(rows, since)
    facts["validation"] = validation
    with contextlib.suppress(OSError, ValueError, KeyError):
        facts["checkpoint"] = (run.checkpoints / "latest").read_text().strip()
        marker = read_json(run.checkpoints / facts["checkpoint"] / "complete.json")
        facts["checkpoint_time"] = datetime.fromisoformat(marker["time"]).timestamp()
    return facts


def pace_s(rows: list[dict[str, Any]], since: float = 0.0) -> float | None:
    """Seconds from step to step, saving and validation included, over the last steps of the attempt of `since`.

    None before two steps are done.
    """
    times = [moment for row in rows[-PACE_STEPS - 1 :] if (moment := _time(row)) is not None and moment >= since]
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 and times[-1] > times[0] else None


def _time(row: dict[str, Any]) -> float | None:
    try:
        return datetime.fromisoformat(row["time"]).timestamp()
    except (KeyError, ValueError):
        return None


def _tail(path: Path) -> list[dict[str, Any]]:
    return last_rows(path, TAIL_BYTES)


def _end(path: Path) -> list[dict[str, Any]]:
    return last_rows(path, LAST_BYTES)[-1:]


def _losses(path: Path) -> list[dict[str, Any]]:
    return [{"checkpoint": row["checkpoint"], "loss": row["loss"]} for row in read_jsonl(path)]


def last_rows(path: Path, num_bytes: int) -> list[dict[str, Any]]:
    """The whole rows in the last `num_bytes` of a JSONL file."""
    at_once = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe that nobody writes into keeps nobody waiting
    with open(os.open(path, at_once), "rb") as file:
        start = max(0, os.fstat(file.fileno()).st_size - num_bytes)
        file.seek(start)
        lines = file.read().splitlines()
    rows = []
    for line in lines[1 if start else 0 :]:
        with contextlib.suppress(ValueError):  # being written at this moment
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and "step" in row]
