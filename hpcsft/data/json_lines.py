"""JSON lines cut into rows, without parsing them: one pass over bytes, in bounded memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

from hpcsft.data.formats import RowError
from hpcsft.data.streams import Damaged

MAX_ROW_BYTES = 64 * 2**20
"""A longer row is passed over in pieces: nothing that long is a conversation."""

Found = tuple[int, int, bytes | RowError]
"""A row's number from 1, the byte of the file at which it begins, and its text or what is wrong with it."""


def too_long(size: int) -> RowError:
    """What is wrong with a row of `size` bytes."""
    return RowError(f"{size:,} bytes, longer than the {MAX_ROW_BYTES:,} that a row may have")


def lost(reason: object) -> RowError:
    """What stands in place of all rows behind a damaged place."""
    return RowError(f"the file is cut off or damaged here: {reason}; rows after it are lost")


class Held:
    """The beginning of a row that goes on in the next block: its size, and its bytes unless they are too many."""

    def __init__(self, piece: bytes = b""):
        self.pieces = [piece]
        self.size = len(piece)

    def add(self, piece: bytes) -> None:
        """The row goes on."""
        self.size += len(piece)
        if self.size > MAX_ROW_BYTES:
            self.pieces = []
        else:
            self.pieces.append(piece)

    def row(self) -> bytes:
        """What was added; nothing when it is too long."""
        return b"".join(self.pieces)


def scan_lines(blocks: Iterable[bytes], number: int = 1, offset: int = 0) -> Iterator[Found]:
    """The lines that are not blank, from line `number` on, which begins at byte `offset`."""
    try:
        for line, size in _lines(blocks):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if size > MAX_ROW_BYTES:
                yield number, offset, too_long(size)
            elif line.strip():
                yield number, offset, line
            number += 1
            offset += size + 1
    except Damaged as damage:
        yield number, offset, lost(damage)


def _lines(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Every line and its size."""
    held = Held()
    for block in blocks:
        first, *others = block.split(b"\n")
        held.add(first)
        if others:
            yield held.row(), held.size
            held = Held(others.pop())
            for line in others:
                yield line, len(line)
    yield held.row(), held.size
