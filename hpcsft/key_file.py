"""Keys in files that only their owner can read."""

from __future__ import annotations

import os
import stat

from hpcsft.secrets import remember_secret
from hpcsft.shell import quoted

MAX_BYTES = 65_536


class KeyFileError(ValueError):
    """A key file cannot be used; the message says why, `hint` what to do. Neither holds the key."""

    def __init__(self, message: str, hint: str):
        super().__init__(message)
        self.hint = hint


def read_key(path: str) -> str:
    """The key in the file `path`, without white space around it; from then on it is hidden in all output.

    Raises KeyFileError unless it is a file of one line that belongs to this user and that nobody else can read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}", "write the key into it, with mode 0600") from None
    try:
        _check(path, os.fstat(fd))
        data = os.read(fd, MAX_BYTES + 1)
    finally:
        os.close(fd)
    key = data.decode("utf-8", "replace").strip()
    if not key or len(data) > MAX_BYTES or not key.isprintable() or not key.isascii():
        raise KeyFileError(f"{path} holds no key, which is one line of text", "write nothing but the key into it")
    remember_secret(key)
    return key


def _check(path: str, facts: os.stat_result) -> None:
    """KeyFileError unless it is a file that this user owns and nobody else has access to."""
    if not stat.S_ISREG(facts.st_mode):
        raise KeyFileError(f"{path} is no file", "name a file that holds nothing but the key")
    if facts.st_uid != os.geteuid():
        raise KeyFileError(f"{path} belongs to another user (uid {facts.st_uid})", "name a file of your own")
    mode = stat.S_IMODE(facts.st_mode)
    if mode & 0o077:
        raise KeyFileError(f"{path} has mode {mode:04o}: others have access to it", f"chmod 600 {quoted(path)}")
