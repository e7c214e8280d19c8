"""Only one command at a time submits the jobs of a run, from whatever login node.

    RUNS_DIR/.NAME-HASH.lock   who is at it: host, process, since when

The file is made with O_EXCL, which also NFS does in one step, and removed at the end. It stands beside the run, because
the run may not be there yet. What a killed command left is told by its process, where that can be looked at, and else
by its age; ages are taken from the clock of the file server alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType

from hpcsft.errors import SubmissionError
from hpcsft.records import Record, now, read_json, write_text
from hpcsft.rundir import RunDir

STALE_S = 900.0
"""A lock that was not touched for so long is nobody's any more."""
TOUCH_S = 60.0
"""A holder touches its lock so often, whatever it waits for: models of the hub may take hours to fetch."""


class Holder(Record):
    """Who holds a lock; the document in the file."""

    host: str
    pid: int
    began: str
    """When the process began, in ticks since its machine did: another process may get its pid."""
    time: str
    token: str


class SubmissionLock:
    """As a context manager: held inside. SubmissionError if somebody else holds it.

    OSError if the file cannot be made.
    """

    def __init__(self, run: RunDir):
        self.run = run
        self.file = run.path.with_name(f".{run.path.name}.lock")
        pid = os.getpid()
        host = socket.gethostname()
        self.holder = Holder(host=host, pid=pid, began=_began(pid), time=now(), token=secrets.token_hex(8))
        self.made_folders: list[Path] = []
        self._released = threading.Event()

    def __enter__(self) -> SubmissionLock:
        self.made_folders = [folder for folder in self.file.parents if not folder.exists()]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(3):
            if self._made():
                self._released.clear()
                threading.Thread(target=self._touch, daemon=True).start()
                return self
            if not self._stale():
                raise self._held()
            self._break()
        raise self._held()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._released.set()
        with contextlib.suppress(OSError):
            if self.read() in (self.holder, None):
                self.file.unlink(missing_ok=True)
                for folder in self.made_folders:  # a refused submission leaves nothing behind
                    folder.rmdir()

    def renew(self) -> None:
        """Say that the holder lives. SubmissionError if somebody took it for dead and the lock away."""
        if self.read() != self.holder:
            raise SubmissionError(
                f"another command has taken over the submission of {self.run.path} meanwhile",
                f"see what it did: python launch/monitor.py {self.run.path}",
            )
        os.utime(self.file)

    def is_held(self) -> bool:
        """Has nobody taken it away? What cannot be read is held by nobody."""
        with contextlib.suppress(OSError):
            return self.read() == self.holder
        return False

    def _touch(self) -> None:
        while not self._released.wait(TOUCH_S):
            with contextlib.suppress(OSError):
                if self.is_held():
                    os.utime(self.file)

    def read(self) -> Holder | None:
        """Who holds it; None if nobody does, or the file has not been filled yet or is another user's."""
        try:
            return Holder.model_validate(read_json(self.file))
        except (FileNotFoundError, PermissionError, ValueError):
            return None

    def _made(self) -> bool:
        try:
            fd = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return False
        try:
            with open(fd, "w", encoding="utf-8") as file:
                file.write(self.holder.model_dump_json())
                file.flush()
                os.fsync(file.fileno())
        except BaseException:  # a full disk
            self.file.unlink(missing_ok=True)
            raise
        return True

    def _stale(self) -> bool:
        holder = self.read()
        if holder and holder.host == self.holder.host:
            return _began(holder.pid) != holder.began
        return self._age_s() > STALE_S

    def _age_s(self) -> float:
        """By the clock that stamps files here, whatever the clocks of the two hosts say."""
        probe = self.file.with_name(f"{self.file.name}.{self.holder.token}")
        try:
            write_text(probe, "")
            return probe.stat().st_mtime - self.file.stat().st_mtime
        except FileNotFoundError:
            return 0.0
        finally:
            probe.unlink(missing_ok=True)

    def _break(self) -> None:
        """Of several who take it for dead one succeeds. Who then lost a living lock finds out by `renew`."""
        aside = self.file.with_name(f"{self.file.name}.{self.holder.token}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.file, aside)
        aside.unlink(missing_ok=True)

    def _held(self) -> SubmissionError:
        holder = self.read()
        who = _told(holder) if holder else _owner(self.file)
        return SubmissionError(
            f"another command is submitting {self.run.path} ({who})",
            f"wait for it, then try again; if no such command runs any more, remove {self.file}",
        )


def _began(pid: int) -> str:
    """Empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _told(holder: Holder) -> str:
    since = datetime.fromisoformat(holder.time).astimezone().strftime("%H:%M:%S")
    return f"on {holder.host}, process {holder.pid}, since {since}"


def _owner(file: Path) -> str:
    try:
        return f"of {file.owner()}, since {time.strftime('%H:%M:%S', time.localtime(file.stat().st_mtime))}"
    except (OSError, KeyError):
        return "it has just ended"
