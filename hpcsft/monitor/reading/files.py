"""Files of run directories, parsed once for as long as they stay what they are. It only reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hpcsft.errors import HpcsftError

Value = TypeVar("Value")


class Files:
    """What was made of each file, kept until its size, time or inode is another."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Callable[..., Any]], tuple[tuple[int, int, int], Any]] = {}

    def read(self, path: Path, parse: Callable[[Path], Value]) -> Value | None:
        """parse(path), from memory if the file has not changed since; None if there is no such file.

        Raises HpcsftError if `parse` does not understand it (ValueError, KeyError, TypeError).
        """
        key = (str(path), parse)
        try:
            # On a network filesystem to open it is what makes news of other hosts visible.
            with open(path, "rb", opener=_at_once) as file:
                found = os.fstat(file.fileno())
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            known = self._known.get(key)
            if known is None or known[0] != stamp:
                known = (stamp, parse(path))
                self._known[key] = known
            return known[1]
        except (FileNotFoundError, NotADirectoryError):
            self._known.pop(key, None)
            return None
        except (ValueError, KeyError, TypeError):
            hint = "is it damaged, or of another version of hpcsft?"
            raise HpcsftError(f"{path} is not understood", hint) from None


def _at_once(path: str, flags: int) -> int:
    """A pipe that nobody writes into, in another user's run, keeps nobody waiting."""
    return os.open(path, flags | os.O_NONBLOCK)
