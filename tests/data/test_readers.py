"""Guards that every row of every kind of file is read exactly once, in order and with its true place, and that a
damaged file is named instead of being read half.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from hpcsft.data.formats import RowError
from hpcsft.data.readers import find_files, read_rows
from hpcsft.errors import InputError

ROWS = [{"id": str(number), "data": [f"question {number} 问", f"answer {number} 答"]} for number in range(50)]


def write(path: Path, rows: list[dict]) -> str:
    """`rows` in the kind of file that the name of `path` tells."""
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
        return str(path)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = "\n".join(lines) + "\n" if ".jsonl" in path.name else json.dumps(rows, ensure_ascii=False, indent=1)
    data = text.encode("utf-8")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name):
    file = write(tmp_path / name, ROWS)
    found = list(read_rows([file]))
    assert [row.parse() for row in found] == ROWS
    assert [row.number for row in found] == list(range(1, 51))
    assert {row.file for row in found} == {file}


def test_nested_rows_of_parquet_are_plain_python(tmp_path):
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (found,) = read_rows([write(tmp_path / "a.parquet", [row])])
    assert found.parse() == row and type(found.parse()["messages"]) is list


def test_files_are_read_in_the_order_given_and_only_when_needed(tmp_path):
    second = write(tmp_path / "a.jsonl", ROWS[25:])
    first = write(tmp_path / "b.parquet", ROWS[:25])
    missing = str(tmp_path / "missing.jsonl")
    rows = read_rows([first, second, missing])
    assert [next(rows).parse() for _ in ROWS] == ROWS
    with pytest.raises(InputError, match=r"missing\.jsonl: cannot be read: No such file"):
        next(rows)


def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\n{"data": 1}\n   \n\r\n{"data": 2}')  # and no newline at the end
    assert [(row.number, row.parse()["data"]) for row in read_rows([str(file)])] == [(2, 1), (5, 2)]


def test_one_bad_line_does_not_stop_the_others(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"data": 1}\n{"data": "\xff"}\n{"data": \n' + b"[" * 100_000 + b'\n{"data": 2}\n')
    rows = list(read_rows([str(file)]))
    assert [row.number for row in rows] == [1, 2, 3, 4, 5]
    assert (rows[0].parse(), rows[4].parse()) == ({"data": 1}, {"data": 2})
    with pytest.raises(RowError, match="not UTF-8 text"):
        rows[1].parse()
    for row in rows[2:4]:
        with pytest.raises(RowError, match="not valid JSON"):
            row.parse()


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz"])
@pytest.mark.parametrize("damage", ["truncated", "not gzip"])
def test_a_damaged_gzip_file_is_named(tmp_path, name, damage):
    file = Path(write(tmp_path / name, ROWS))
    file.write_bytes(file.read_bytes()[:-9] if damage == "truncated" else b"plain text")
    with pytest.raises(InputError, match=rf"{name}: cannot be read: .*(end-of-stream|gzipped)"):
        list(read_rows([str(file)]))


def test_flipped_bits_in_a_gzip_file_are_named(tmp_path):
    file = Path(write(tmp_path / "a.jsonl.gz", ROWS))
    data = file.read_bytes()
    file.write_bytes(data[:20] + bytes(byte ^ 0x55 for byte in data[20:40]) + data[40:])
    with pytest.raises(InputError, match=r"a\.jsonl\.gz: cannot be read"):
        list(read_rows([str(file)]))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path, name):
    file = Path(write(tmp_path / name, ROWS))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert [row.parse() for row in read_rows([str(file)])] == ROWS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"data": []}', r"a JSON array of rows is expected, this is dict"),
        ('[{"data": [}', r"not valid JSON"),
        ('{"data": 1}\n{"data": 2}\n', r"not valid JSON: Extra data"),
    ],
)
def test_a_json_file_that_is_no_array_is_named(tmp_path, text, reason):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=rf"a\.json: {reason}"):
        list(read_rows([str(tmp_path / "a.json")]))


def test_a_json_array_that_is_no_text_is_named(tmp_path):
    (tmp_path / "a.json").write_bytes(b'["\xff"]')
    with pytest.raises(InputError, match=r"a\.json: not valid JSON: .*utf-8"):
        list(read_rows([str(tmp_path / "a.json")]))


@pytest.mark.parametrize("keep", [0, 100])
def test_a_damaged_parquet_file_is_named(tmp_path, keep):
    file = Path(write(tmp_path / "a.parquet", ROWS))
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"a\.parquet: not a readable Parquet file"):
        list(read_rows([str(file)]))


def test_globs_are_sorted_and_no_file_comes_twice(tmp_path):
    names = ["10.jsonl", "2.jsonl", "a.json", "b.jsonl"]
    for name in reversed(names):
        write(tmp_path / name, ROWS[:1])
    paths = [str(tmp_path / name) for name in names]
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    deep = write(tmp_path / "deep" / "deeper" / "c.jsonl", ROWS[:1])
    assert find_files([str(tmp_path / "*.json*")], "data.train") == paths
    assert find_files([paths[3], str(tmp_path / "*.jsonl")], "data.train") == [paths[3], paths[0], paths[1]]
    assert find_files([str(tmp_path / "**" / "c.*")], "data.train") == [deep]


def test_a_path_that_looks_like_a_glob_is_a_path(tmp_path):
    file = write(tmp_path / "part[1].jsonl", ROWS)
    assert find_files([file], "data.train") == [file]


def test_what_cannot_be_found_or_read_is_named(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "table.csv").write_text("a,b\n")
    for name, reason in [
        ("nothing-*.jsonl", r"data\.train: no such file: .*nothing-\*\.jsonl"),
        ("table.csv", r"data\.train: .*table\.csv: unknown kind of file"),
        ("folder.jsonl", r"data\.train: .*folder\.jsonl: cannot be read"),
    ]:
        with pytest.raises(InputError, match=reason):
            find_files([str(tmp_path / name)], "data.train")
