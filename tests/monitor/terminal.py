"""A monitor in a real pseudo terminal, and what a person sees in it (pyte emulates the terminal)."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyte

from tests.launch.command import ROOT, environment

TIMEOUT_S = 60.0


class Terminal:
    """launch/monitor.py, or another script, in a terminal of its own."""

    def __init__(
        self, *arguments: object, cwd: Path, columns: int = 100, rows: int = 30, env: Mapping[str, str] | None = None
    ):
        self.screen = pyte.HistoryScreen(columns, rows, history=500)
        self.stream = pyte.ByteStream(self.screen)
        self.sent = b""
        self._exit: int | None = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            command = [sys.executable, *map(str, arguments)]
            os.execve(sys.executable, command, {**environment(), "TERM": "xterm-256color", **(env or {})})
        self.resize(columns, rows)

    @classmethod
    def monitor(cls, *arguments: object, cwd: Path, **more: object) -> Terminal:
        return cls(ROOT / "launch" / "monitor.py", *arguments, cwd=cwd, **more)

    def resize(self, columns: int, rows: int) -> None:
        """Make the window another size, as a person does with the mouse."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def press(self, keys: str | bytes) -> None:
        """Type."""
        os.write(self.fd, keys if isinstance(keys, bytes) else keys.encode())

    def text(self) -> str:
        """What stands on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait_for(self, *words: str, without: str | None = None) -> str:
        """The screen, once all `words` stand on it and `without` does not."""
        return self.wait(lambda text: all(w in text for w in words) and (not without or without not in text), words)

    def wait(self, condition: Callable[[str], bool], what: object) -> str:
        deadline_s = time.monotonic() + TIMEOUT_S
        while not condition(text := self.text()):
            gone = self._status() is not None
            assert not gone and time.monotonic() < deadline_s, f"waited in vain for {what} on\n{text}"
            self._read(0.05)
        return text

    def watch(self, seconds: float) -> None:
        """Look on for so long, as a person does."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self._read(min(left_s, 0.2))

    def end(self) -> int:
        """Wait for the end of the program; its exit code, or minus the signal that ended it."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while (status := self._status()) is None:
            self._read(0.05)
            assert time.monotonic() < deadline_s, f"it does not end\n{self.text()}"
        return status

    def _status(self) -> int | None:
        """The exit code, once all that was printed has been read; None while the program runs."""
        if self._exit is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._exit = os.waitstatus_to_exitcode(status)
                self._read(0.05)
        return self._exit

    def close(self) -> None:
        if self._exit is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read(self, timeout_s: float) -> None:
        while select.select([self.fd], [], [], timeout_s)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # the program has closed its end
                return
            if not data:
                return
            self.sent += data
            self.stream.feed(data)
            timeout_s = 0


def cpu_s(pid: int) -> float:
    """Processor seconds that a process and its ended children have taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def run_in_pipe(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """launch/monitor.py with a pipe for its output."""
    command = [sys.executable, str(ROOT / "launch" / "monitor.py"), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
