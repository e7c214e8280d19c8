"""What a filesystem refuses, in words: the path, the reason, and what a person can do about it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from hpcsft.errors import HpcsftError

HINTS = {
    errno.ENOSPC: "make room there (`hpcsft clean` removes old checkpoints), or set runs_dir to another filesystem",
    errno.EDQUOT: "your quota there is used up: make room (`hpcsft clean` removes old checkpoints), or set runs_dir to "
    "another filesystem",
    errno.EROFS: "the filesystem is read-only now: try again when it can be written, or set runs_dir to another",
    errno.EACCES: "whose is it? `ls -ld` tells; set runs_dir to a folder of yours",
    errno.EPERM: "whose is it? `ls -ld` and `lsattr -d` tell; set runs_dir to a folder of yours",
    errno.ENOENT: "was it moved or deleted? is its filesystem mounted here?",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
}
NO_ANSWER = "the filesystem does not answer as it should: try again when it does"
"""Of a stale handle, an error of the device, a server that is away, and whatever else there may be."""


def storage_error(error: OSError, doing: str) -> HpcsftError:
    """What a person is told when `error` stopped `doing` ("RUN cannot be submitted")."""
    cause = _first(error)
    reason = os.strerror(cause.errno) if cause.errno else str(cause)
    where = f"{cause.filename}: " if cause.filename else ""
    return HpcsftError(f"{doing}: {where}{reason}", HINTS.get(cause.errno or 0, NO_ANSWER))


def _first(error: OSError) -> OSError:
    """shutil collects what befell each file in one error: the first of them is told."""
    collected = error.args[0] if error.args else None
    if error.errno is None and isinstance(collected, list) and collected:
        origin, destination, reason = collected[0]
        number = next((code for code in errno.errorcode if os.strerror(code) in str(reason)), 0)
        return OSError(number, str(reason), str(destination if number != errno.ENOENT else origin))
    return error


@contextlib.contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Inside, an OSError becomes an HpcsftError that says that `doing` failed; see `storage_error`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing) from None
