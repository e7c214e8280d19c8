"""Guards that every row of every kind of file is read exactly once, in order and with its true place, that reading can
begin anywhere, and that damage costs what it has to and is told.
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from hpcsft.data import json_lines, streams
from hpcsft.data.formats import RowError
from hpcsft.data.readers import FileIndex, Mark, RawRow, index_file, read_file, read_rows
from hpcsft.errors import InputError
from tests.data.made_files import FILES, TEXTS, content, packed, shown, write, write_saved

ROWS = [{"data": [f"question {number} 问", f"answer {number} 答"]} for number in range(50)]
PACKED = [name for name in TEXTS if name.endswith((".gz", ".zst"))]


def make(tmp_path: Path, name: str) -> str:
    return write_saved(tmp_path / name, ROWS) if name == "saved" else write(tmp_path / name, ROWS)


@pytest.mark.parametrize("name", [*FILES, "saved"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name):
    file = make(tmp_path, name)
    found = list(read_rows([file]))
    assert [row.parse() for row in found] == ROWS
    assert [row.number for row in found] == list(range(1, 51))
    assert {row.file for row in found} == {file}


@pytest.mark.parametrize("name", [*FILES, "saved"])
def test_reading_can_begin_at_any_row(tmp_path, name):
    file = make(tmp_path, name)
    index = index_file(file, 8)
    assert (index.file, index.rows) == (file, 50)
    assert [(mark.rows, mark.number) for mark in index.marks] == [(rows, rows + 1) for rows in range(0, 50, 8)]
    for start in range(52):
        for known in (index, None):
            assert [row.parse() for row in read_file(file, known, start)] == ROWS[start:]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_plain_file_is_entered_at_its_mark(tmp_path, name):
    """What stands before the mark is not even looked at."""
    file = Path(write(tmp_path / name, ROWS))
    index = index_file(str(file), 10)
    data = bytearray(file.read_bytes())
    for mark in index.marks[1:]:
        assert data[: mark.offset].count(b'"data"') == mark.rows
    data[: index.marks[3].offset] = b"x" * index.marks[3].offset
    file.write_bytes(data)
    found = list(read_file(str(file), index, 34))
    assert [(row.number, row.parse()) for row in found] == [(number + 1, ROWS[number]) for number in range(34, 50)]


def test_an_index_is_plain_data():
    index = FileIndex("a.jsonl", 3, [Mark(0, 1, 0), Mark(2, 5, 70)])
    name, rows, marks = json.loads(json.dumps(index))
    assert FileIndex(name, rows, [Mark(*mark) for mark in marks]) == index


def test_files_are_read_in_the_order_given_and_only_when_needed(tmp_path):
    second = write(tmp_path / "a.jsonl", ROWS[25:])
    first = write(tmp_path / "b.parquet", ROWS[:25])
    missing = str(tmp_path / "missing.jsonl")
    rows = read_rows([first, second, missing])
    assert [next(rows).parse() for _ in ROWS] == ROWS
    with pytest.raises(InputError, match=r"missing\.jsonl: cannot be read: No such file"):
        next(rows)


@pytest.mark.parametrize("name", [*FILES, "saved"])
def test_a_file_that_vanished_is_one_line_of_error(tmp_path, name):
    for read in (lambda file: list(read_file(file)), lambda file: index_file(file, 5)):
        with pytest.raises(InputError, match=rf"{name}: cannot be read: No such file"):
            read(str(tmp_path / name))


def test_blank_lines_are_no_rows_but_count_as_lines(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\n{"data": 1}\n   \n\r\n{"data": 2}')  # and no newline at the end
    assert [(row.number, row.parse()["data"]) for row in read_rows([str(file)])] == [(2, 1), (5, 2)]
    index = index_file(str(file), 1)
    assert index == FileIndex(str(file), 2, [Mark(0, 2, 1), Mark(1, 5, 19)])
    assert [row.number for row in read_file(str(file), index, 1)] == [5]


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\t\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_file_of_blank_lines_has_no_rows(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    assert list(read_file(str(tmp_path / "a.jsonl"))) == []
    assert index_file(str(tmp_path / "a.jsonl"), 5).rows == 0


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


def test_what_is_wrong_with_a_row_is_told_when_it_is_parsed():
    with pytest.raises(RowError, match=r"^broken$"):
        RawRow("a", 1, RowError("broken")).parse()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.zst"])
@pytest.mark.parametrize("block", [16, 1 << 20])
def test_a_row_that_is_too_long_is_one_bad_row(tmp_path, monkeypatch, name, block):
    assert json_lines.MAX_ROW_BYTES == 64 * 2**20
    monkeypatch.setattr(json_lines, "MAX_ROW_BYTES", 100)
    monkeypatch.setattr(streams, "BLOCK_BYTES", block)
    exact = {"data": ["a" * (100 - len('{"data": [""]}'))]}
    longer = {"data": ["a" * 87]}
    file = write(tmp_path / name, [ROWS[0], longer, exact, longer, ROWS[1]])
    found = [content(row) for row in read_file(file)]
    size = 101 if ".jsonl" in name else 103  # between elements there is a newline and a blank
    if ".jsonl" in name:
        bad = f"! {size} bytes, longer than the 100 that a row may have"
        assert found == [ROWS[0], bad, exact, bad, ROWS[1]]
    else:
        assert found[0] == ROWS[0] and found[4] == ROWS[1] and "longer than the 100" in found[1]
    assert index_file(file, 2).rows == 5


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_row_that_is_too_long_is_not_kept(tmp_path, monkeypatch, name):
    monkeypatch.setattr(json_lines, "MAX_ROW_BYTES", 1 << 20)
    file = write(tmp_path / name, [{"data": ["a" * 20_000_000, "b"]}, ROWS[0]])
    tracemalloc.start()
    try:
        found = [content(row) for row in read_file(file)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "longer than the 1,048,576" in found[0] and found[1] == ROWS[0]
    assert peak < 5_000_000


@pytest.mark.parametrize("name", PACKED)
def test_a_compressed_file_that_is_cut_off_yields_its_whole_rows(tmp_path, name, conversations):
    dice = random.Random(0)  # something that cannot be compressed: zstd packs 128 KiB at a time
    rows = [{"id": dice.randbytes(400).hex(), "data": texts} for texts in conversations]
    file = Path(write(tmp_path / name, rows))
    data = file.read_bytes()
    shares = []
    for place in range(len(data) // 3, len(data), len(data) // 7):
        file.write_bytes(data[:place])
        *found, last = read_file(str(file))
        assert [row.parse() for row in found] == rows[: len(found)]
        assert last.number == len(found) + 1
        with pytest.raises(RowError, match=r"the file is cut off or damaged here: .+; rows after it are lost"):
            last.parse()
        assert index_file(str(file), 100).rows == len(found) + 1
        shares.append(len(found) / len(rows))
    assert shares == sorted(shares) and shares[-1] > 0.7


def test_not_one_whole_row_before_the_cut_is_lost(tmp_path):
    """The second part of a .zst is damaged: the call of the unpacker that finds out has good bytes of the first."""
    first = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
    for name, reason in [("a.jsonl.gz", "Not a gzipped file"), ("a.jsonl.zst", "Unknown frame descriptor")]:
        (tmp_path / name).write_bytes(packed(name, first) + b"no more of it")
        *found, last = read_file(str(tmp_path / name))
        assert [row.parse() for row in found] == ROWS
        assert last.number == 51 and reason in str(last.payload)


@pytest.mark.parametrize("name", PACKED)
def test_a_file_of_several_compressed_parts_is_read_to_its_end(tmp_path, name):
    lines = [json.dumps(row).encode() + b"\n" for row in ROWS]
    halves = [b"".join(lines[:20]), b"".join(lines[20:])]
    if ".jsonl" not in name:
        halves = [b"[" + halves[0].replace(b"\n", b","), halves[1].rstrip().replace(b"\n", b",") + b"]"]
    (tmp_path / name).write_bytes(b"".join(packed(name, half) for half in halves))
    assert [row.parse() for row in read_file(str(tmp_path / name))] == ROWS


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("data", [b"plain text", packed("a.gz", b"x" * 1000)[:6], packed("a.zst", b"x" * 1000)[:6]])
def test_a_file_of_which_nothing_can_be_unpacked_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name}: cannot be read: ."):
        list(read_rows([str(tmp_path / name)]))
    with pytest.raises(InputError, match=rf"{name}: cannot be read: ."):
        index_file(str(tmp_path / name), 5)


def test_a_wrong_checksum_is_told_after_the_last_row(tmp_path):
    file = Path(write(tmp_path / "a.jsonl.gz", ROWS))
    data = file.read_bytes()
    file.write_bytes(data[:-6] + bytes([data[-6] ^ 0x55]) + data[-5:])
    *found, last = read_rows([str(file)])
    assert [row.parse() for row in found] == ROWS and "CRC check failed" in str(last.payload)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path, name):
    data = b"\xef\xbb\xbf" + Path(write(tmp_path / name.removesuffix(".gz"), ROWS)).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert [row.parse() for row in read_rows([str(tmp_path / name)])] == ROWS
    assert shown(list(read_file(str(tmp_path / name), index_file(str(tmp_path / name), 3), 4)))[0][1] == 5


MEASURE = """
import resource, sys
from hpcsft.data.readers import index_file, read_file
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(1 for row in read_file(sys.argv[1]) if len(row.payload) > 10)
assert index_file(sys.argv[1], 1000).rows == rows
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.json.gz"])
def test_memory_does_not_grow_with_the_file(tmp_path, name):
    row = {"data": ["a long question " * 100, "b"]}
    file = write(tmp_path / name, [row] * 20_000)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, file], capture_output=True, text=True, check=True, timeout=120
    )
    rows, grown_kib = map(int, done.stdout.split())
    assert rows == 20_000 and grown_kib < 16 * 1024, "32 MB of text"
