"""What passes through a run directory: atomic JSON, append-only JSONL, and the typed records of both.

A file is written under a temporary name, flushed, fsynced and renamed, and its folder is fsynced: a reader sees the
old file or the new one, never a part, also after a power cut. JSONL files are only appended to, one whole line per
write; a line that a killed writer left torn at the end is skipped by readers and cut off by the next writer.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def fsync_folder(folder: Path) -> None:
    """Make renames and new names inside `folder` durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step (0600 unless the umask is stricter)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON, in one step. NaN and infinities are refused (ValueError)."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _at_once(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """An `opener` for open() that waits for nobody to write into a pipe, which another user's run may hold."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_json(path: Path) -> Any:
    """The JSON document in `path`; raises FileNotFoundError, OSError or ValueError as the file deserves.

    What is no file, such as a pipe or a device that never ends, deserves a ValueError.
    """
    with open(path, encoding="utf-8", opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{path} is no file")
        try:
            return json.loads(file.read())
        except RecursionError:
            raise ValueError(f"{path} is nested too deeply") from None


def append_jsonl(path: Path, *rows: Any) -> None:
    """Append one line per row with a single write, then fsync. A torn last line is ended first."""
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            text = "\n" + text  # readers skip the torn line in between
        data = text.encode("utf-8")
        try:
            if os.write(fd, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(fd)
        except OSError:  # a full disk may say so only here
            os.ftruncate(fd, size)
            raise
    finally:
        os.close(fd)


def read_jsonl(path: Path) -> Iterator[Any]:
    """Every whole row of `path`, none if it does not exist; lines that a killed writer tore are skipped."""
    try:
        file = open(path, "rb", opener=_at_once)  # noqa: SIM115 (closed below; a missing file is no error)
    except FileNotFoundError:
        return
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue


class Record(BaseModel):
    """Base of the typed records; unknown keys of a newer version are ignored when reading."""

    model_config = ConfigDict(frozen=True)


class Progress(Record):
    """How far a stage is, in its own unit (rows, steps, prompts, verdicts)."""

    done: int
    total: int
    unit: str


JobId = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.+-]*)?$")]
"""Slurm's id of a job or of a task of an array, or a name like it: it is given to Slurm's clients, and shown."""


def _moment(text: str) -> str:
    if text:
        datetime.fromisoformat(text)
    return text


Moment = Annotated[str, AfterValidator(_moment)]
"""A time as `now` writes it; empty where an older version wrote none."""

BY_HAND = "hand-"
"""What the job ids of stages begin with that a person has started; the process id follows."""


class StageStatus(Record):
    """status/STAGE[-INDEX].json: what one task of a stage last said about itself."""

    stage: str
    index: int
    state: Literal["running", "stopped", "done", "failed", "waiting"]
    """stopped: this attempt has ended, another one will go on. waiting: a person has to give something first."""
    attempt: int
    """1 for the first start of this task, one more at each start after a requeue."""
    job_id: JobId
    restart: int = 0
    """Slurm's own count of requeues of this job."""
    host: str = ""
    message: str | None = None
    hint: str | None = None
    log: str | None = None
    """Path of the log that tells more, relative to the run directory."""
    progress: Progress | None = None
    started: Moment = ""
    updated: Moment = ""
    after_job: JobId | None = None
    """Of a start by hand: the job that had been submitted for the stage by then. Clocks of two hosts may differ."""

    @property
    def by_hand(self) -> bool:
        """Did a person start it, outside the cluster's queue?"""
        return self.job_id.startswith(BY_HAND)

    def is_of(self, job: SubmittedStage) -> bool:
        """Is it about this submission, or by hand since then, and not about one before it?"""
        if self.by_hand:
            return self.after_job == job.job_id if self.after_job else self.started >= job.submitted
        return self.job_id.partition("_")[0] == job.job_id


class SubmittedStage(Record):
    """One stage as it was handed to the cluster."""

    stage: str
    job_id: JobId
    """Slurm's id of the job (of the whole array, if it is one); `local-PID` of the driver without Slurm."""
    depends_on: list[JobId]
    """Job ids that must end well first."""
    tasks: int
    """Size of the job array; 1 for a plain job."""
    submitted: str


class Intent(Record):
    """What is being handed to the cluster at this moment, or was when whoever did it was interrupted."""

    mark: str
    """Drawn anew for each try; the job carries it in its comment and in its environment."""
    jobs: list[SubmittedStage]
    """Without the id that they are going to have."""


class Submission(Record):
    """submission.json: everything that was submitted for a run, oldest first; resubmitted stages stand again."""

    cluster: Literal["slurm", "local"]
    host: str
    cluster_name: str | None = None
    """What Slurm calls the cluster; None without Slurm, and where an older version has submitted."""
    user: str | None = None
    """Who has submitted; None where an older version has."""
    path: str = ""
    """Where the run directory was at the last submission: its jobs look for it there."""
    jobs: list[SubmittedStage] = []
    intent: Intent | None = None
    """Nobody has written down yet what became of it."""

    def latest(self) -> dict[str, SubmittedStage]:
        """The last submission of each stage, in the order of the plan."""
        return {job.stage: job for job in self.jobs}
