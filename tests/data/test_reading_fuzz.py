"""Guards that whatever bytes a file holds, reading it ends in rows, bad rows or one line of error, never a traceback,
and that the index, which shares the work out, agrees with reading to the row.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hpcsft.data import json_lines, streams
from hpcsft.data.formats import RowError, conversation_of
from hpcsft.data.readers import index_file, read_file
from hpcsft.errors import InputError
from tests.data.made_files import FILES, packed, shown, write, write_saved

CASES = 60
"""Damaged files of each kind."""
BITS = [
    b"\n",
    b'"',
    b"\\",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b"\xff",
    b"\0",
    b"\\ud83d",
    b"\xef\xbb\xbf",
    b" \r\n\n",
    b"1e999",
]


def damaged(data: bytes, dice: random.Random) -> bytes:
    """`data` with a few changes of the kinds that disks, networks and editors make."""
    for _ in range(dice.choice([0, 1, 1, 1, 2, 5, 20])):
        place = dice.randrange(len(data) + 1)
        end = place + dice.choice([0, 1, 1, 10, 200])
        change = dice.randrange(6)
        if change == 0:
            data = data[:place]
        elif change == 1:
            data = data[:place] + dice.randbytes(end - place) + data[end:]
        elif change == 2:
            data = data[:place] + dice.choice(BITS) * dice.choice([1, 1, 1, 50]) + data[place:]
        elif change == 3:
            data = data[:place] + data[end:]
        elif change == 4:
            data = data[:place] + dice.choice(BITS) + data[place + 1 :]
        else:
            data = data[:place] + data[place:end] * 2 + data[end:]
    return data


def rows_of(conversations, dice: random.Random) -> list[dict]:
    dialogs = dice.sample(conversations, dice.randrange(1, 40))
    return [{"id": str(number), "data": texts} for number, texts in enumerate(dialogs)]


def check(file: str, dice: random.Random) -> int | None:
    """Read `file` in every way; the number of rows, None if it cannot be read."""
    try:
        rows = list(read_file(file))
    except InputError as error:
        assert len(error.message.splitlines()) == 1
        with pytest.raises(InputError):
            index_file(file, 3)
        return None
    for row in rows:
        try:
            conversation_of(row.parse())
        except RowError as error:
            str(error).encode("utf-8")  # can be written into the quarantine file
    every = dice.choice([1, 2, 3, 7, 1000])
    index = index_file(file, every)
    assert (index.file, index.rows) == (file, len(rows))
    assert [mark.rows for mark in index.marks] == list(range(0, len(rows), every))
    assert [mark.number for mark in index.marks] == [row.number for row in rows[::every]]
    for start in [0, len(rows), *(dice.randrange(len(rows) + 2) for _ in range(3))]:
        assert shown(list(read_file(file, index, start))) == shown(rows[start:])
    assert shown(list(read_file(file, None, start))) == shown(rows[start:])
    return len(rows)


@pytest.fixture(params=[7, 100, 1 << 20], ids="blocks of {}".format)
def block_bytes(request, monkeypatch) -> int:
    """Small blocks put every border between two of them to the test."""
    monkeypatch.setattr(streams, "BLOCK_BYTES", request.param)
    monkeypatch.setattr(json_lines, "MAX_ROW_BYTES", 1500)
    return request.param


@pytest.mark.parametrize("name", FILES)
def test_damaged_files(name, block_bytes, tmp_path, conversations):
    dice = random.Random(f"{name}/{block_bytes}")
    read = 0
    for _ in range(CASES):
        file = Path(write(tmp_path / name, rows_of(conversations, dice)))
        file.write_bytes(damaged(file.read_bytes(), dice))
        read += check(str(file), dice) is not None
    assert read > CASES / 10, "nearly all files became unreadable: no test of damage within"


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.zst"])
def test_damaged_text_in_whole_compressed_files(name, block_bytes, tmp_path, conversations):
    dice = random.Random(f"{name}/{block_bytes}/inside")
    for _ in range(CASES // 3):
        plain = Path(write(tmp_path / name.rpartition(".")[0], rows_of(conversations, dice)))
        (tmp_path / name).write_bytes(packed(name, damaged(plain.read_bytes(), dice)))
        check(str(tmp_path / name), dice)


def test_damaged_folders_of_datasets(tmp_path, conversations):
    dice = random.Random("saved")
    folder = Path(write_saved(tmp_path / "saved", rows_of(conversations, dice)))
    files = sorted(folder.iterdir())
    whole = {file: file.read_bytes() for file in files}
    read = 0
    for _ in range(CASES):
        file = dice.choice(files)
        file.write_bytes(damaged(whole[file], dice))
        read += check(str(folder), dice) is not None
        file.write_bytes(whole[file])
    assert CASES > read > CASES / 10
