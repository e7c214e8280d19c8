"""The bytes of a text file, plain, .gz or .zst, in blocks: whatever its size, one block is in memory at a time."""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from typing import IO

from hpcsft.errors import InputError

BLOCK_BYTES = 1 << 18


class Damaged(Exception):
    """A compressed file is cut off or damaged at this place; all before it has been handed out."""


def is_compressed(file: str) -> bool:
    """Can `file` only be read from its beginning?"""
    return os.path.splitext(file)[1] in _OPENERS


def read_blocks(file: str, offset: int = 0) -> Iterator[bytes]:
    """The file's bytes, unpacked, from byte `offset` on (0 where it is compressed).

    Raises InputError when the file cannot be read, Damaged after the last good byte of a compressed one.
    """
    given = False
    try:
        for block in _OPENERS.get(os.path.splitext(file)[1], _plain_blocks)(file, offset):
            yield block
            given = True
    except (OSError, EOFError, zlib.error) as error:
        if given and getattr(error, "errno", None) is None:  # what the disk refuses has a number, damage has none
            raise Damaged(str(error)) from None
        raise unreadable(file, error) from None


def unreadable(file: str, error: Exception) -> InputError:
    """The error of a file that cannot be read, in one line."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__
    return InputError(f"{file}: cannot be read: {reason}", "is it whole, and may you read it?")


def _plain_blocks(file: str, offset: int) -> Iterator[bytes]:
    with open(file, "rb", buffering=0) as stream:
        stream.seek(offset)
        yield from _blocks(stream.read, BLOCK_BYTES)


def _gzip_blocks(file: str, offset: int) -> Iterator[bytes]:
    with gzip.open(file, "rb") as stream:
        yield from _blocks(stream.read1, BLOCK_BYTES)  # read() would lose what it has when it meets damage


def _zstd_blocks(file: str, offset: int) -> Iterator[bytes]:
    given = 0
    try:
        with _open_zstd(file) as stream:
            for block in _blocks(stream.read, BLOCK_BYTES):
                yield block
                given += len(block)
        return
    except OSError as error:
        if error.errno is not None:
            raise
    with _open_zstd(file) as stream:  # the call that met damage has lost up to a block of good bytes: fetch them singly
        while given:
            given -= len(stream.read(min(given, BLOCK_BYTES)))
        yield from _blocks(stream.read, 1)


@contextlib.contextmanager
def _open_zstd(file: str) -> Iterator[IO[bytes]]:
    import pyarrow  # heavy: only where there is such a file

    with open(file, "rb") as raw, pyarrow.input_stream(raw, compression="zstd") as stream:
        yield stream


def _blocks(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    while block := read(size):
        yield block


_OPENERS = {".gz": _gzip_blocks, ".zst": _zstd_blocks}
