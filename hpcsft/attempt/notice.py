"""Signals that ask a rank to stop: SIGTERM, and SIGUSR2, which Slurm sends ahead of the time limit.

A handler in Python runs only when the call that the main thread is in returns, which inside a collective may take
minutes. So the handlers do nothing, and a thread reads the wakeup file descriptor, into which the interpreter's own
C handler writes the number of each signal at once. Nobody acts in here: ranks look at `requested` between steps.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

ASKING = (signal.SIGTERM, signal.SIGUSR2)

came_before: list[int] = []
"""Signals that a task has received before its stage could listen."""


class Notice:
    """Was this process asked to stop, and by what? As a context manager it installs the handlers.

    With `by_hand` Ctrl-C asks too; a second one interrupts.
    """

    def __init__(self, on_request: Callable[[str], None] | None = None, by_hand: bool = False):
        self.requested: str | None = None
        """Name of the first signal, or "time limit"; None while nobody has asked."""
        self._on_request = on_request
        self._asking = (*ASKING, signal.SIGINT) if by_hand else ASKING
        self._previous: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._old_wakeup = -1

    def request(self, name: str) -> None:
        """Ask this process to stop; only the first time counts."""
        if self.requested is None:
            self.requested = name
            if self._on_request:
                with contextlib.suppress(OSError):  # a journal that cannot be written must not stop the stopping
                    self._on_request(name)

    def __enter__(self) -> Notice:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may install handlers
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self._pipe = (reader, writer)
        self._old_wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in self._asking:
            self._previous[number] = signal.signal(number, _interrupt_next if number == signal.SIGINT else _do_nothing)
            signal.siginterrupt(number, False)
        self._previous[signal.SIGCONT] = signal.signal(signal.SIGCONT, signal.SIG_IGN)
        for number in came_before:
            self.request(signal.Signals(number).name)
        threading.Thread(target=self._read, args=(reader,), name="notice", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pipe is None:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self._pipe[1])  # ends the thread, which closes its own end
        self._pipe = None

    def _read(self, reader: int) -> None:
        while data := os.read(reader, 64):
            for number in data:
                if number in self._asking:
                    self.request(signal.Signals(number).name)
        os.close(reader)


def _do_nothing(number: int, frame: object) -> None:
    """The thread has seen it."""


def _interrupt_next(number: int, frame: object) -> None:
    signal.signal(number, signal.default_int_handler)
