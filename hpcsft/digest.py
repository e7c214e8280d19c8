"""The sha256 of a file, read in blocks, of which hashlib lets other threads run beside it."""

from __future__ import annotations

import hashlib
import os
import threading

BLOCK_BYTES = 2**22


class Interrupted(Exception):
    """A digest was given up because its result is not wanted any more."""


def sha256_of(path: str | os.PathLike[str], given_up: threading.Event | None = None) -> str:
    """sha256 of a file in hexadecimal. OSError if it cannot be read, Interrupted as soon as `given_up` is set."""
    digest, block = hashlib.sha256(), bytearray(BLOCK_BYTES)
    view = memoryview(block)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            if given_up is not None and given_up.is_set():
                raise Interrupted
            digest.update(view[:count])
    return digest.hexdigest()
