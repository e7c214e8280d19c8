"""Guards that tables give plain rows, that damage in one row or row group costs no other, and that a column which has
nothing to do with conversations is never touched.
"""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet
import pytest

from hpcsft.data import tables
from hpcsft.data.readers import index_file, read_file
from hpcsft.errors import InputError
from tests.data.made_files import content, write, write_saved

ROWS = [{"data": [f"question {number}", f"answer {number}"]} for number in range(50)]


def test_nested_rows_are_plain_python(tmp_path):
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    for file in (write(tmp_path / "a.parquet", [row]), write_saved(tmp_path / "saved", [row])):
        (found,) = read_file(file)
        assert found.parse() == row and type(found.parse()["messages"]) is list


def test_columns_that_no_format_reads_are_left_alone(tmp_path):
    """Such as embeddings, or times in nanoseconds, for which Python has no type."""
    table = pa.Table.from_pylist(ROWS).append_column("time", pa.array(range(50), pa.timestamp("ns")))
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    assert [row.parse() for row in read_file(str(tmp_path / "a.parquet"))] == ROWS


def test_a_table_of_something_else_shows_its_columns(tmp_path):
    (row,) = read_file(write(tmp_path / "a.parquet", [{"text": "a", "label": 1}]))
    assert row.parse() == {"text": "a", "label": 1}


def test_few_rows_at_a_time_where_they_are_large(monkeypatch, tmp_path):
    sizes = []
    real = tables.payloads
    monkeypatch.setattr(tables, "payloads", lambda batch: sizes.append(len(batch)) or real(batch))
    monkeypatch.setattr(tables, "BATCH_BYTES", 5000)
    rows = [{"data": [str(number) * 500, "b"]} for number in range(10)]
    for file in (write(tmp_path / "a.parquet", rows), write_saved(tmp_path / "saved", rows)):
        assert [row.parse() for row in read_file(file)] == rows
    assert max(sizes) <= 10 and len(sizes) >= 3
    assert tables._batch_rows(0, 0) == 1 and tables._batch_rows(10, 10**6) == tables.BATCH_ROWS


MEASURE = """
import resource, sys, pyarrow.parquet
from hpcsft.data.readers import read_file
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(1 for row in read_file(sys.argv[1]))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_row_group(tmp_path):
    dice = random.Random(0)
    table = pa.Table.from_pylist([{"output": dice.randbytes(5000).hex()} for _ in range(15_000)])
    pa.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=len(table), use_dictionary=False)
    assert (tmp_path / "a.parquet").stat().st_size > 70e6
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "a.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    rows, grown_kib = map(int, done.stdout.split())
    assert rows == 15_000 and grown_kib < 60 * 1024


def test_a_wrong_checksum_is_noticed(tmp_path):
    """Where the writer kept one, a flipped letter is damage, not another word."""
    pa.parquet.write_table(
        pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", compression="none", write_page_checksum=True
    )
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data.replace(b"question 7", b"question 8"))
    found = [content(row) for row in read_file(str(tmp_path / "a.parquet"))]
    assert len(found) == 50 and all("row group 1 is damaged: " in row for row in found)


def test_a_row_that_is_no_text_costs_itself(tmp_path):
    file = Path(write(tmp_path / "a.parquet", ROWS))
    pa.parquet.write_table(pa.Table.from_pylist(ROWS), file, compression="none", use_dictionary=False)
    file.write_bytes(file.read_bytes().replace(b"question 7", b"question\xff7"))
    found = [content(row) for row in read_file(str(file))]
    assert found[:7] + found[8:] == ROWS[:7] + ROWS[8:]
    assert found[7].startswith("! not a readable row: ")


def test_a_damaged_row_group_costs_its_own_rows(tmp_path):
    """Each of them is counted: the share of bad rows stays the true one, and the index needs the footer only."""
    file = Path(write(tmp_path / "a.parquet", ROWS))
    column = pa.parquet.ParquetFile(file).metadata.row_group(2).column(0)
    place = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(file.read_bytes())
    data[place : place + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    file.write_bytes(data)
    found = [content(row) for row in read_file(str(file))]
    assert found[:14] + found[21:] == ROWS[:14] + ROWS[21:]
    assert all(row.startswith("! row group 3 is damaged: ") for row in found[14:21])
    assert index_file(str(file), 10).rows == 50
    assert [content(row) for row in read_file(str(file), start=17)] == found[17:]


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_parquet_file_that_is_cut_off_is_named(tmp_path, keep):
    file = Path(write(tmp_path / "a.parquet", ROWS))
    file.write_bytes(file.read_bytes()[:keep])
    for read in (lambda: list(read_file(str(file))), lambda: index_file(str(file), 5)):
        with pytest.raises(InputError, match=r"a\.parquet: not a readable Parquet file: ."):
            read()


class Footer(NamedTuple):
    """A footer as a flipped bit may leave it."""

    num_rows: int
    groups: list[int]

    @property
    def num_row_groups(self) -> int:
        return len(self.groups)

    def row_group(self, number: int) -> Footer:
        return Footer(self.groups[number], [])


@pytest.mark.parametrize(("total", "rows"), [(8, [7]), (7, [7, 1]), (1 << 60, [7]), (7, [8, -1])])
def test_a_footer_that_contradicts_itself_is_not_believed(total, rows):
    assert tables._rows_of_groups(Footer(7, [3, 4])) == [3, 4]
    with pytest.raises(ValueError, match="its footer contradicts itself"):
        tables._rows_of_groups(Footer(total, rows))


def test_a_group_that_is_shorter_than_promised_has_bad_rows(tmp_path, monkeypatch):
    file = write(tmp_path / "a.parquet", ROWS[:7])
    monkeypatch.setattr(tables, "_rows_of_groups", lambda metadata: [9])
    found = [content(row) for row in read_file(file)]
    assert found == ROWS[:7] + ["! row group 1 is damaged: it ends too early"] * 2


def test_a_damaged_folder_is_named(tmp_path):
    folder = Path(write_saved(tmp_path / "saved", ROWS))
    (arrow,) = folder.glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(InputError, match=r"saved: cannot be read: "):
        list(read_file(str(folder)))


def test_a_saved_selection_is_read_in_its_order(tmp_path):
    import datasets

    folder = str(tmp_path / "saved")
    datasets.Dataset.from_list(ROWS).select([9, 3, 4]).save_to_disk(folder)
    assert [row.parse() for row in read_file(folder)] == [ROWS[9], ROWS[3], ROWS[4]]
    assert [row.parse() for row in read_file(folder, start=1)] == [ROWS[3], ROWS[4]]


def test_a_damaged_batch_of_a_saved_data_set_is_not_touched(tmp_path):
    """Its offsets may point anywhere in memory."""
    folder = Path(write_saved(tmp_path / "saved", ROWS))
    (arrow,) = folder.glob("*.arrow")
    data = arrow.read_bytes()
    ends = list(itertools.accumulate(len(text) for row in ROWS for text in row["data"]))
    offset = ends[40].to_bytes(4, "little") + ends[41].to_bytes(4, "little")
    assert data.count(offset) == 1
    arrow.write_bytes(data.replace(offset, offset[:4] + (1 << 30).to_bytes(4, "little")))
    found = [content(row) for row in read_file(str(folder))]
    assert len(found) == 50 and all(row.startswith("! damaged together with its neighbours: ") for row in found)
    assert [content(row) for row in read_file(str(folder), start=33)] == found[33:]


def test_the_same_rows_are_bad_wherever_reading_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BATCH_ROWS", 8)
    folder = Path(
        write_saved(tmp_path / "saved", [{"instruction": f"{n:02}", "output": f"yes {n:02}"} for n in range(30)])
    )
    (arrow,) = folder.glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes().replace(b"yes 19", b"yes \xff\xff"))
    found = [content(row) for row in read_file(str(folder))]
    assert [number for number, row in enumerate(found) if isinstance(row, str)] == list(range(16, 24))
    for start in range(31):
        assert [content(row) for row in read_file(str(folder), start=start)] == found[start:]


def test_a_damaged_batch_costs_no_other(tmp_path):
    import datasets

    folder = tmp_path / "saved"
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.save_to_disk(folder, num_shards=5)
    arrow = sorted(folder.glob("*.arrow"))[2]
    arrow.write_bytes(arrow.read_bytes().replace(b"question 23", b"question \xff\xff"))
    found = [content(row) for row in read_file(str(folder))]
    assert found[:20] + found[30:] == ROWS[:20] + ROWS[30:]
    assert all("Invalid UTF8" in row for row in found[20:30])
    assert [content(row) for row in read_file(str(folder), start=27)] == found[27:]
