"""The same rows in every kind of file that can be read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from hpcsft.data.formats import RowError
from hpcsft.data.readers import RawRow

TEXTS = ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.json.gz", "a.json.zst"]
FILES = [*TEXTS, "a.parquet"]


def write(path: Path, rows: Sequence[dict]) -> str:
    """`rows` in the kind of file that the name of `path` tells."""
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
        return str(path)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = "\n".join(lines) + "\n" if ".jsonl" in path.name else json.dumps(rows, ensure_ascii=False, indent=1)
    path.write_bytes(packed(path.name, text.encode("utf-8")))
    return str(path)


def packed(name: str, data: bytes) -> bytes:
    """`data` as a file called `name` holds it."""
    if name.endswith(".gz"):
        return gzip.compress(data, mtime=0)
    return pa.Codec("zstd").compress(data).to_pybytes() if name.endswith(".zst") else data


def write_saved(folder: Path, rows: Sequence[dict]) -> str:
    """`rows` as `datasets` saves them."""
    import datasets

    datasets.Dataset.from_list(list(rows)).save_to_disk(folder)
    return str(folder)


def shown(rows: Sequence[RawRow]) -> list[tuple]:
    """Rows that can be compared: errors by their text."""
    return [
        (row.file, row.number, f"! {row.payload}" if isinstance(row.payload, RowError) else row.payload) for row in rows
    ]


def content(row: RawRow) -> object:
    """What the row holds, or what is wrong with it."""
    try:
        return row.parse()
    except RowError as error:
        return f"! {error}"
