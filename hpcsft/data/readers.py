"""Rows out of files: JSON lines, JSON arrays, Parquet, saved data sets and those of the hub, a few in memory at a time.

Rows are handed out unparsed, so that a task of an array can pass over the rows of the other tasks cheaply. A row that
cannot be read is a row all the same, with what is wrong in place of its content.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from hpcsft.data.files import ARRAYS, PARQUET, find_files, state_of
from hpcsft.data.formats import RowError
from hpcsft.data.hub import open_hub
from hpcsft.data.json_arrays import scan_array
from hpcsft.data.json_lines import Found, scan_lines
from hpcsft.data.streams import is_compressed, read_blocks
from hpcsft.data.tables import count_parquet, open_folder, read_dataset, read_parquet
from hpcsft.hub.names import is_hub_name

__all__ = ["FileIndex", "Mark", "RawRow", "find_files", "index_file", "read_file", "read_rows", "state_of"]


class RawRow(NamedTuple):
    """A row and where it stands."""

    file: str
    number: int
    """Line of a JSONL file, position in others, counted from 1."""
    payload: bytes | dict[str, Any] | RowError

    def parse(self) -> Any:
        """The row's JSON value; RowError if it is none."""
        if isinstance(self.payload, RowError):
            raise RowError(*self.payload.args)
        if not isinstance(self.payload, bytes):
            return self.payload
        try:
            return json.loads(self.payload.decode("utf-8"))
        except UnicodeDecodeError:
            raise RowError("not UTF-8 text") from None
        except (ValueError, RecursionError) as error:
            raise RowError(f"not valid JSON: {error}") from None


class Mark(NamedTuple):
    """A place where reading can begin."""

    rows: int
    """Rows before it."""
    number: int
    """Number of its first row."""
    offset: int
    """Byte at which that row begins; 0 where a file can only be read from its beginning, or needs no such place."""


class FileIndex(NamedTuple):
    """What one pass over a file tells."""

    file: str
    rows: int
    """As many as `read_file` yields, bad ones included."""
    marks: list[Mark]
    """At row 0 and at every so many rows after it, as far as there are rows."""


def index_file(file: str, every: int) -> FileIndex:
    """Count the rows of `file` and mark one of `every`. InputError if the file cannot be read."""
    count = _count(file)
    if count is not None:
        return FileIndex(file, count, [Mark(rows, rows + 1, 0) for rows in range(0, count, every)])
    marks: list[Mark] = []
    rows = 0
    for number, offset, _ in _scan(file, _BEGINNING):
        if rows % every == 0:
            marks.append(Mark(rows, number, 0 if is_compressed(file) else offset))
        rows += 1
    return FileIndex(file, rows, marks)


def read_file(file: str, index: FileIndex | None = None, start: int = 0) -> Iterator[RawRow]:
    """The rows of `file` from row `start` (counted from 0) on; `index` saves the way there.

    Raises InputError if the file cannot be read.
    """
    if _is_table(file):
        for number, payload in enumerate(_read_table(file, start), start + 1):
            yield RawRow(file, number, payload)
        return
    marks = index.marks if index else []
    mark = max((mark for mark in marks if mark.rows <= start and mark.offset), default=_BEGINNING)
    for number, _, payload in itertools.islice(_scan(file, mark), start - mark.rows, None):
        yield RawRow(file, number, payload)


def read_rows(files: Iterable[str]) -> Iterator[RawRow]:
    """Every row of `files`, in order. Raises InputError on an unreadable file."""
    for file in files:
        yield from read_file(file)


_BEGINNING = Mark(0, 1, 0)


def _is_table(file: str) -> bool:
    return is_hub_name(file) or file.endswith(PARQUET) or os.path.isdir(file)


def _scan(file: str, mark: Mark) -> Iterator[Found]:
    blocks = read_blocks(file, mark.offset)
    if file.endswith(ARRAYS):
        return scan_array(blocks, file, mark.number, mark.offset)
    return scan_lines(blocks, mark.number, mark.offset)


def _read_table(file: str, start: int) -> Iterator[dict[str, Any] | RowError]:
    if is_hub_name(file):
        return read_dataset(open_hub(file), start)
    return read_dataset(open_folder(file), start) if os.path.isdir(file) else read_parquet(file, start)


def _count(file: str) -> int | None:
    """Rows of a table; None for a text, which has to be read."""
    if not _is_table(file):
        return None
    if is_hub_name(file):
        return len(open_hub(file))
    return len(open_folder(file)) if os.path.isdir(file) else count_parquet(file)
