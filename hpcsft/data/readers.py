"""Rows out of files: JSON lines, JSON arrays and Parquet, plain or gzipped, one row in memory at a time.

Rows are handed out unparsed, so that a task of an array can pass over the rows of the other tasks cheaply.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpcsft.data.formats import RowError
from hpcsft.errors import InputError

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")


class RawRow(NamedTuple):
    """A row and where it stands."""

    file: str
    number: int
    """Line of a JSONL file, position in others, counted from 1."""
    payload: bytes | dict[str, Any]

    def parse(self) -> Any:
        """The row's JSON value; RowError if it is none."""
        if not isinstance(self.payload, bytes):
            return self.payload
        try:
            return json.loads(self.payload.decode("utf-8"))
        except UnicodeDecodeError:
            raise RowError("not UTF-8 text") from None
        except (ValueError, RecursionError) as error:
            raise RowError(f"not valid JSON: {error}") from None


def find_files(patterns: Sequence[str], where: str) -> list[str]:
    """The files behind paths and globs, each pattern's matches sorted. `where` is the spec's field, for errors."""
    files: list[str] = []
    for pattern in patterns:
        matches = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise InputError(f"{where}: no such file: {pattern}", "paths are relative to where submit is called")
        for match in matches:
            if not match.endswith(ENDINGS):
                raise InputError(f"{where}: {match}: unknown kind of file", f"known endings: {', '.join(ENDINGS)}")
            if not os.path.isfile(match) or not os.access(match, os.R_OK):
                raise InputError(f"{where}: {match}: cannot be read", "is it a file, and may you read it?")
        files.extend(match for match in matches if match not in files)
    return files


def read_rows(files: Iterable[str]) -> Iterator[RawRow]:
    """Every row of `files`, in order; blank lines are passed over. Raises InputError on an unreadable file."""
    for file in files:
        try:
            yield from _read_file(file)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _read_file(file: str) -> Iterator[RawRow]:
    if file.endswith(".parquet"):
        yield from _read_parquet(file)
    elif file.endswith((".jsonl", ".jsonl.gz")):
        with _open(file) as lines:
            for number, line in enumerate(lines, start=1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    yield RawRow(file, number, line)
    else:
        yield from _read_json_array(file)


def _open(file: str) -> Any:
    return gzip.open(file, "rb") if file.endswith(".gz") else open(file, "rb")


def _read_json_array(file: str) -> Iterator[RawRow]:
    with _open(file) as stream:
        try:
            rows = json.loads(stream.read().decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file}: not valid JSON: {error}", "one object per line is called .jsonl") from None
    if not isinstance(rows, list):
        raise InputError(f"{file}: a JSON array of rows is expected, this is {type(rows).__name__}")
    for number, row in enumerate(rows, start=1):
        yield RawRow(file, number, row)


def _read_parquet(file: str) -> Iterator[RawRow]:
    import pyarrow.parquet  # heavy: only where there is a Parquet file
    from pyarrow import ArrowException

    try:
        number = 0
        for batch in pyarrow.parquet.ParquetFile(Path(file)).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield RawRow(file, number, row)
    except ArrowException as error:
        raise InputError(f"{file}: not a readable Parquet file: {error}") from None
