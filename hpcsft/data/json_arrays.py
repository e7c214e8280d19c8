"""A JSON array cut into its elements, without parsing them: one pass over bytes, in bounded memory.

An element that is no JSON stays a row of its own wherever its end can be told, so that it costs itself and not its
neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from hpcsft.data import json_lines
from hpcsft.data.formats import RowError
from hpcsft.data.json_lines import Found, Held, lost, too_long
from hpcsft.data.streams import Damaged
from hpcsft.errors import InputError

MAX_DEPTH = 10_000
"""Brackets that may be open at once; a parser gives up at about 1,000."""

_BEFORE_ARRAY = re.compile(rb"[^ \t\r\n\xef\xbb\xbf]")
_AFTER_ARRAY = re.compile(rb"[^ \t\r\n]")
_IN_ARRAY = re.compile(rb'[]["{},]')
_IN_ELEMENT = re.compile(rb'[]["{}]')
_BACKSLASH = ord("\\")
_OPENED_BY = {b"]": b"[", b"}": b"{"}


def scan_array(blocks: Iterable[bytes], file: str, number: int = 1, offset: int = 0) -> Iterator[Found]:
    """The elements from element `number` on, which begins at byte `offset`; 0 is the beginning of the file.

    What follows damage is one row at byte 0. Raises InputError when `file` begins with something else than an array.
    """
    array = _Array(file, number, offset)
    reason: object = "the array is not closed"
    try:
        for block in blocks:
            yield from array.elements(block)
        if array.closed:
            return
        if not array.begun:
            raise _no_array(file, "there is nothing in it")
    except Damaged as damage:
        reason = damage
    yield from array.last()
    yield array.number, 0, lost(reason)


def _no_array(file: str, what: str) -> InputError:
    hint = "one object per line is called .jsonl"
    return InputError(f"{file}: a JSON array of rows is expected, {what}", hint)


class _Array:
    """Where a walk over the blocks of an array stands."""

    def __init__(self, file: str, number: int, offset: int):
        self.file, self.number = file, number
        self.begun, self.closed = offset > 0, False
        self._after_comma = self.begun
        self._start = offset  # of the element
        self._passed = offset  # bytes of the file before the block
        self._held = Held()
        self._ends = _Ends()

    def elements(self, block: bytes) -> Iterator[Found]:
        """The elements that end in the next block. Raises Damaged for text behind the array, InputError before it."""
        begin = 0 if self.begun else self._begin(block)
        if self.begun and not self.closed:
            for end in self._ends.find(block, begin):
                self._held.add(block[begin:end])
                self.closed = block[end] == ord("]")
                begin = end + 1
                yield from self._take(may_be_none=self.closed and not self._after_comma)
                self._after_comma = True
                self._start = self._passed + begin
                if self.closed:
                    break
            else:
                self._held.add(block[begin:])
        if self.closed and _AFTER_ARRAY.search(block, begin):
            raise Damaged("there is text after the end of the array")
        self._passed += len(block)

    def last(self) -> Iterator[Found]:
        """The element before the damage, if it is whole."""
        if self.begun and not self.closed and self._ends.outside:
            yield from self._take(may_be_none=True)

    def _begin(self, block: bytes) -> int:
        """Where the first element begins in `block`."""
        match = _BEFORE_ARRAY.search(block)
        if not match:
            return 0
        if match[0] != b"[":
            raise _no_array(self.file, f"this begins with {match[0].decode('ascii', 'backslashreplace')}")
        self.begun = True
        self._start = self._passed + match.end()
        return match.end()

    def _take(self, may_be_none: bool) -> Iterator[Found]:
        text, size = self._held.row().strip(), self._held.size
        payload: bytes | RowError = too_long(size) if size > json_lines.MAX_ROW_BYTES else text
        if payload or not may_be_none:
            yield self.number, self._start, payload
            self.number += 1
        self._held = Held()


class _Ends:
    """Finds the commas and the bracket that end elements: not in strings, not within other brackets."""

    def __init__(self) -> None:
        self._open = bytearray()
        self._quoted = self._escaped = False

    @property
    def outside(self) -> bool:
        """Is the walk between two elements, or in one that is a bare number?"""
        return not self._open and not self._quoted

    def find(self, block: bytes, position: int) -> Iterator[int]:
        """The places in `block` from `position` on."""
        opened = self._open
        while True:
            if self._quoted:
                position = self._end_of_string(block, position)
                if self._quoted:
                    return
            match = (_IN_ELEMENT if opened else _IN_ARRAY).search(block, position)
            if not match:
                return
            char, position = match[0], match.end()
            if char == b'"':
                end = block.find(b'"', position)
                if end >= 0 and block[end - 1] != _BACKSLASH:  # nearly all strings: the rest goes the long way
                    position = end + 1
                else:
                    self._quoted = True
            elif char in b"[{":
                opened += char
                if len(opened) > MAX_DEPTH:
                    raise Damaged(f"more than {MAX_DEPTH:,} brackets are open")
            elif opened:
                place = opened.rfind(_OPENED_BY[char])
                if place >= 0:  # closes what was opened behind it as well: a lost bracket costs one element only
                    del opened[place:]
            elif char != b"}":
                yield position - 1

    def _end_of_string(self, block: bytes, position: int) -> int:
        """The place behind the closing quote, if it is in `block`."""
        position += self._escaped
        self._escaped = False
        while (end := block.find(b'"', position)) >= 0:
            if not _odd_backslashes(block, position, end):
                self._quoted = False
                return end + 1
            position = end + 1
        self._escaped = _odd_backslashes(block, position, len(block))
        return len(block)


def _odd_backslashes(block: bytes, start: int, end: int) -> bool:
    """Is what follows block[start:end] escaped?"""
    if block[end - 1 : end] != b"\\" or end <= start:
        return False
    text = block[start:end]
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1
