"""Guards that a bad row can be found and recognised by what the quarantine says of it, whatever it holds."""

from __future__ import annotations

import json

import pytest

from hpcsft.data.formats import RowError
from hpcsft.data.quarantine import EXCERPT_CHARACTERS, bad_row, join_bad_rows, write_bad_rows
from hpcsft.data.readers import RawRow


@pytest.mark.parametrize(
    ("payload", "excerpt"),
    [
        (b'{"data": []}', '{"data": []}'),
        (b"caf\xe9", "caf\\xe9"),
        ({"text": "caf\u00e9"}, '{"text": "caf\u00e9"}'),
        ({"text": "\ud800"}, '{"text": "\\ud800"}'),
        (RowError("cut off"), ""),
        ("中".encode() * 1000, "中" * EXCERPT_CHARACTERS),
    ],
)
def test_the_excerpt_can_be_written_down(tmp_path, payload, excerpt):
    bad = bad_row(RawRow("a.jsonl", 7, payload), "why")
    assert (bad.file, bad.row, bad.reason, bad.excerpt) == ("a.jsonl", 7, "why", excerpt)
    file = tmp_path / "bad.jsonl"
    write_bad_rows(file, [bad, bad])
    assert [json.loads(line)["row"] for line in file.read_text(encoding="utf-8").splitlines()] == [7, 7]


def test_a_huge_row_leaves_a_short_excerpt():
    assert len(bad_row(RawRow("a", 1, b"x" * 10_000_000), "why").excerpt) == EXCERPT_CHARACTERS


def test_quarantines_are_joined_in_order(tmp_path):
    rows = [bad_row(RawRow("a.jsonl", number, b"{"), "why") for number in range(5)]
    files = [tmp_path / "1", tmp_path / "2"]
    write_bad_rows(files[0], rows[:2])
    write_bad_rows(files[1], rows[2:])
    joined = tmp_path / "all.jsonl"
    assert join_bad_rows(joined, files) == rows[0]
    assert [json.loads(line)["row"] for line in joined.read_text().splitlines()] == [0, 1, 2, 3, 4]
    assert join_bad_rows(joined, []) is None and joined.read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "all.jsonl"]
