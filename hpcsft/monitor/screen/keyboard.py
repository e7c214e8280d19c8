"""Keys of a terminal, one at a time and without waiting for enter."""

from __future__ import annotations

import os
import re
import select
import termios
from types import TracebackType

KEYS = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[C": "right",
    b"\x1b[D": "left",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1bOC": "right",
    b"\x1bOD": "left",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
    b"\x1b": "esc",
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\x08": "backspace",
    b"\x03": "ctrl-c",
    b" ": "page down",
}
ONE_KEY = re.compile(rb"\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Z])|[\xc0-\xff][\x80-\xbf]+|.", re.DOTALL)
REST_OF_A_KEY_S = 0.05
"""Over a slow line the parts of an arrow key may come one after the other."""


class Keyboard:
    """The keys typed at the terminal `fd`; as a context manager it gives the terminal back as it was."""

    def __init__(self, fd: int):
        self.fd = fd
        self._before: list[object] | None = None

    def __enter__(self) -> Keyboard:
        self._before = termios.tcgetattr(self.fd)
        mode = termios.tcgetattr(self.fd)
        mode[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)  # ctrl-C and ctrl-Z are keys like others
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self.fd, termios.TCSADRAIN, mode)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios.tcsetattr(self.fd, termios.TCSADRAIN, self._before)

    def read(self) -> list[str]:
        """The keys that have been typed; waits if there are none. Ctrl-C when the terminal is gone."""
        data = os.read(self.fd, 4096)
        if not data:
            return ["ctrl-c"]
        while data.endswith((b"\x1b", b"\x1b[", b"\x1bO")) and select.select([self.fd], [], [], REST_OF_A_KEY_S)[0]:
            data += os.read(self.fd, 4096)
        return keys(data)


def keys(data: bytes) -> list[str]:
    """The names of the keys that a terminal sends as `data`; those without a name are their own."""
    return [KEYS.get(key, key.decode(errors="replace")) for key in ONE_KEY.findall(data)]
