"""Guards that an array is cut exactly between its elements wherever blocks end, and that damage inside one element
costs that element only.
"""

from __future__ import annotations

import json
import tracemalloc

import pytest

from hpcsft.data import json_arrays
from hpcsft.data.formats import RowError
from hpcsft.data.json_arrays import scan_array
from hpcsft.data.readers import RawRow
from hpcsft.errors import InputError
from tests.data.made_files import content


def rows_of(data: bytes, size: int = 1 << 20) -> list:
    """What `data` in blocks of `size` bytes holds, in order; what is wrong where something is."""
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    found = list(scan_array(blocks, "a.json"))
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))
    for number, offset, payload in found:
        if not isinstance(payload, RowError):
            assert data[offset:].strip().startswith(payload)
            if offset:
                assert next(scan_array([data[offset:]], "a.json", number, offset)) == (number, offset, payload)
    return [content(RawRow("a.json", number, payload)) for number, _, payload in found]


VALUES = [
    {},
    {"a": []},
    [],
    "",
    'q"uote, [{ ',
    "back\\",
    "\\\\",
    '\\"]',
    {"data": ["{", "}", '"', "\\", ",", "]", "é问😀", "\n\t\0"]},
    [[[1, 2], {"x": {"y": [3]}}]],
    0,
    -1.5e3,
    None,
    True,
]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1 << 20])
def test_elements_of_every_kind_in_blocks_of_every_size(indent, ascii, size):
    data = json.dumps(VALUES, indent=indent, ensure_ascii=ascii).encode()
    assert rows_of(data, size) == VALUES
    assert rows_of(b"\xef\xbb\xbf \r\n" + data + b"\n \n", size) == VALUES


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", []),
        (" [ \n ] ", []),
        ("[1]", [1]),
        ("[1,]", [1, "! not valid JSON"]),
        ("[,1]", ["! not valid JSON", 1]),
        ('[{"a": 1} {"a": 2}, 3]', ["! not valid JSON", 3]),
        ('[{"a": nonsense}, 3]', ["! not valid JSON", 3]),
        ('[{"a": [1}, {"b": 2}]', ["! not valid JSON", {"b": 2}]),
        ('[{"a": [1]]}, {"b": 2}]', ["! not valid JSON", {"b": 2}]),
        ('[{"a": {"b": 1]}, "c": 2}, 3]', ["! not valid JSON", 3]),
        ('[{"a": 1}}, {"b": 2}]', ["! not valid JSON", {"b": 2}]),
        ('[{"a": 1}', [{"a": 1}, "! cut off or damaged here: the array is not closed; rows after it are lost"]),
        ('[{"a": 1}, {"b', [{"a": 1}, "! cut off or damaged here: the array is not closed; rows"]),
        ('[{"a": 1}, ', [{"a": 1}, "! cut off or damaged here: the array is not closed; rows"]),
        ("[", ["! cut off or damaged here: the array is not closed; rows"]),
        ('[{"a": 1}] {"b": 2}', [{"a": 1}, "! cut off or damaged here: there is text after the end of the array"]),
    ],
)
def test_damage_costs_as_little_as_can_be(text, expected, size):
    found = rows_of(text.encode(), size)
    assert len(found) == len(expected)
    for value, wanted in zip(found, expected, strict=True):
        if isinstance(wanted, str):
            assert value.startswith("! ") and wanted.removeprefix("! ") in value
        else:
            assert value == wanted


def test_an_element_that_is_no_text_costs_itself():
    assert rows_of(b'["\xff", "a"]') == ["! not UTF-8 text", "a"]


def test_brackets_without_end_are_not_kept():
    tracemalloc.start()
    try:
        found = rows_of(b"[1," + b"[" * 5_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found[0] == 1 and f"more than {json_arrays.MAX_DEPTH:,} brackets are open" in found[1]
    assert len(found) == 2 and peak < 25_000_000


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"data": []}', r"this begins with \{"),
        (b'\n {"data": 1}\n{"data": 2}\n', r"this begins with \{"),
        (b"\xff\xfe[\0", r"this begins with \\xff"),
        (b" \n", "there is nothing in it"),
        (b"", "there is nothing in it"),
    ],
)
def test_what_is_no_array_is_named(data, reason, size):
    with pytest.raises(InputError, match=rf"a\.json: a JSON array of rows is expected, {reason}") as caught:
        rows_of(data, size)
    assert "one object per line is called .jsonl" in caught.value.hint
