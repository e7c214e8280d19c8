"""The logs in which the reason of a failure may stand: of the ranks that ended first, and of what launched them.

Attempts of one job share what the batch script and srun print into; where an attempt's part begins, the journal tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpcsft.log_tail import shown_lines
from hpcsft.monitor.failure.naming import suspects
from hpcsft.monitor.reading.files import Files
from hpcsft.monitor.state.facts import Log
from hpcsft.records import StageStatus
from hpcsft.rundir import RunDir

LOG_BYTES = 262_144
"""The end of a log in which the deciding line is looked for."""

Rows = Sequence[Mapping[str, Any]]


def failure_logs(
    run: RunDir, stage: str, job_id: str, status: StageStatus | None, rows: Rows, files: Files
) -> list[Log]:
    """The ends of the logs that may tell why the last attempt of a task ended, the most likely first.

    `job_id` is the task's as Slurm calls it, `rows` are all rows of its journal.
    """
    restart = status.restart if status else 0
    attempt = [row for row in rows if (row["job_id"], row["restart"]) == (job_id, restart)]
    launchers = _launchers(run, stage, job_id, restart, rows, files)
    printed = [line for log in launchers for line in log.lines]
    folder = run.log_folder(stage, job_id, restart)
    paths = [folder / f"{rank}.err" for rank in suspects(attempt, printed)]
    if status and status.log:
        paths.append(run.path / status.log)
    own = [log for path in dict.fromkeys(paths) if (log := _end(run, path, 0, files))]
    return own + launchers


def _launchers(run: RunDir, stage: str, job_id: str, restart: int, rows: Rows, files: Files) -> list[Log]:
    """What the batch script, srun and submitit have printed in this attempt."""
    ends = [row for row in rows if row["event"] == "end" and row["job_id"] == job_id and row["restart"] < restart]
    begins = ends[-1].get("log_bytes", {}) if ends else {}
    found = sorted((run.submitit / stage).glob(f"{job_id}_*_log.err"))
    return [log for path in found if (log := _end(run, path, begins.get(path.name, 0), files))]


def _end(run: RunDir, path: Path, begin: int, files: Files) -> Log | None:
    """The last lines of a log from byte `begin` on; None if there are none."""
    known = files.read(path, _read)
    if known is None:
        return None
    passed = known.data[: begin - known.offset].count(b"\n") if begin > known.offset else 0
    lines = known.lines[passed:]
    log = str(path.relative_to(run.path))
    return Log(path=log, lines=lines, lines_before=known.lines_before + passed) if lines else None


class End(NamedTuple):
    """The end of a file."""

    data: bytes
    offset: int
    """Where it begins, in bytes."""
    lines_before: int
    lines: list[str]
    """As a terminal would show them."""


def _read(path: Path) -> End:
    with open(path, "rb") as file:
        offset = max(0, file.seek(0, 2) - LOG_BYTES)
        file.seek(0)
        lines_before = 0
        for begin in range(0, offset, LOG_BYTES):
            lines_before += file.read(min(LOG_BYTES, offset - begin)).count(b"\n")
        data = file.read(LOG_BYTES)
    if offset:  # the first line is a part of one
        first, newline, data = data.partition(b"\n")
        offset, lines_before = offset + len(first + newline), lines_before + 1
    return End(data, offset, lines_before, shown_lines(data))
