"""Rows of Arrow tables, Parquet files and folders that `datasets` wrote, a few at a time.

What a format does not need is never read, since a column beside the conversations may be of any size and type.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hpcsft.data.formats import COLUMNS, RowError
from hpcsft.data.streams import unreadable
from hpcsft.errors import InputError

if TYPE_CHECKING:
    import datasets
    import pyarrow
    import pyarrow.parquet

Payload = dict[str, Any] | RowError

BATCH_BYTES = 16 * 2**20
BATCH_ROWS = 1024


def count_parquet(file: str) -> int:
    """Rows of a Parquet file, from its footer. InputError if it has none that can be read."""
    with _Parquet(file) as opened:
        return sum(opened.rows)


def read_parquet(file: str, start: int) -> Iterator[Payload]:
    """The rows from row `start` on. As many as the footer promises: those of a damaged row group are bad rows."""
    with _Parquet(file) as opened:
        for group, rows in enumerate(opened.rows):
            if start < rows:
                yield from opened.read(group, start)
            start = max(0, start - rows)


class _Parquet:
    """An open Parquet file and the rows of its row groups."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> _Parquet:
        import pyarrow.parquet  # heavy: only where there is a Parquet file

        try:
            self._stream = open(self.name, "rb")
        except OSError as error:
            raise unreadable(self.name, error) from None
        try:
            self._file = pyarrow.parquet.ParquetFile(
                self._stream,
                buffer_size=2**20,
                pre_buffer=False,  # or a whole row group is in memory at once
                page_checksum_verification=True,
            )
            self.rows = _rows_of_groups(self._file.metadata)
            self._columns = _wanted(self._file.schema_arrow.names)
        except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
            self._stream.close()
            reason = str(error).partition("\n")[0]
            raise InputError(f"{self.name}: not a readable Parquet file: {reason}", "fetch or write it again") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, group: int, start: int) -> Iterator[Payload]:
        """The rows of one row group from its row `start` on."""
        import pyarrow

        rows = self.rows[group]
        batch_rows = _batch_rows(self._file.metadata.row_group(group).total_byte_size, rows)
        place, reason = 0, "it ends too early"
        try:
            for batch in self._file.iter_batches(batch_rows, row_groups=[group], columns=self._columns):
                first, place = place, min(place + len(batch), rows)
                if place > start:
                    skipped = max(start - first, 0)
                    yield from payloads(batch.slice(skipped, place - first - skipped))
        except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
            reason = str(error).partition("\n")[0]
        for _ in range(max(place, start), rows):
            yield RowError(f"row group {group + 1} is damaged: {reason}")


def _rows_of_groups(metadata: pyarrow.parquet.FileMetaData) -> list[int]:
    """Rows of each group. ValueError if the footer contradicts itself: no reader should count to a damaged number.

    Only plain numbers are looked at: pyarrow ends the process over a damaged description of a column.
    """
    rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
        raise ValueError("its footer contradicts itself")
    return rows


def open_folder(folder: str) -> datasets.Dataset:
    """The data set that `datasets` saved in `folder`; InputError if it cannot be opened."""
    import datasets

    try:
        return datasets.load_from_disk(folder)
    except Exception as error:  # datasets lets through whatever it meets in a damaged folder
        raise unreadable(folder, error) from None


def read_dataset(dataset: datasets.Dataset, start: int) -> Iterator[Payload]:
    """The rows of a data set from row `start` on. Those of a damaged batch are bad rows."""
    table = dataset.select_columns(_wanted(dataset.column_names)).with_format("arrow")
    step = _batch_rows(dataset.data.table.get_total_buffer_size(), len(dataset))
    place = start - start % step  # the same batches wherever reading begins
    for first in range(place, len(dataset), step):
        for batch in table[first : first + step].to_batches():
            yield from itertools.islice(_checked(batch), max(start - place, 0), None)
            place += len(batch)


def _checked(batch: pyarrow.RecordBatch) -> Iterator[Payload]:
    """The rows of a batch that lies in a file as it does in memory: Arrow would follow damaged offsets anywhere."""
    import pyarrow

    try:
        batch.validate(full=True)
    except pyarrow.ArrowException as error:
        yield from [RowError(f"damaged together with its neighbours: {str(error).partition(chr(10))[0]}")] * len(batch)
    else:
        yield from payloads(batch)


def payloads(batch: pyarrow.RecordBatch) -> Iterator[Payload]:
    """The rows of `batch` as Python objects; one that is no text costs itself only."""
    import pyarrow

    try:
        yield from batch.to_pylist()
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        if len(batch) == 1:
            yield RowError(f"not a readable row: {str(error).partition(chr(10))[0]}")
        else:
            for row in range(len(batch)):
                yield from payloads(batch.slice(row, 1))


def _wanted(columns: list[str]) -> list[str]:
    """The columns that some format reads; all if there is none, so that the error can name them."""
    return [name for name in columns if name in COLUMNS] or columns


def _batch_rows(size: int, rows: int) -> int:
    """Rows that fit into BATCH_BYTES, at most BATCH_ROWS."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(size, 1)))
