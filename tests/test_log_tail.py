"""Logs are read from their ends: nothing twice, nothing lost, and nothing that would upset a terminal."""

from __future__ import annotations

import os
import random

import pytest

from hpcsft.log_tail import CHUNK_BYTES, Tail, for_terminal, last_lines, offset_of_last, shown_lines


def test_a_tail_reads_each_byte_once(tmp_path):
    path = tmp_path / "0.out"
    tail = Tail(path)
    assert tail.read() == b""  # it is not there yet
    path.write_bytes(b"one\ntw")
    assert tail.read() == b"one\ntw"
    assert tail.read() == b""
    with open(path, "ab") as file:
        file.write(b"o\n")
    assert tail.read() == b"o\n"


def test_a_tail_survives_a_file_that_is_cut_or_replaced(tmp_path):
    path = tmp_path / "0.out"
    path.write_bytes(b"a long beginning\n")
    tail = Tail(path)
    tail.read()
    path.write_bytes(b"short\n")  # cut
    assert tail.read() == b"short\n"
    (tmp_path / "new").write_bytes(b"another file of more bytes\n")
    os.replace(tmp_path / "new", path)
    assert tail.read() == b"another file of more bytes\n"


def test_a_tail_takes_much_in_parts(tmp_path):
    path = tmp_path / "0.out"
    data = random.Random(0).randbytes(2 * CHUNK_BYTES + 7)
    path.write_bytes(data)
    parts = list(iter(Tail(path).read, b""))
    assert [len(part) for part in parts] == [CHUNK_BYTES, CHUNK_BYTES, 7] and b"".join(parts) == data


def test_a_tail_that_is_far_behind_skips(tmp_path):
    path = tmp_path / "0.out"
    path.write_bytes(b"0123456789")
    tail = Tail(path, max_bytes=4)
    assert tail.read() == b"6789"
    with open(path, "ab") as file:
        file.write(b"abcdef")
    assert tail.read() == b"cdef"


@pytest.mark.parametrize("text", ["", "\n", "a", "a\n", "a\nb", "\n\na\n\nb\n\n", "a" * 200_000 + "\nb\n" * 70_000])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 100_000])
def test_the_place_of_the_last_lines(text, count, tmp_path):
    path = tmp_path / "0.out"
    path.write_text(text)
    lines = text.splitlines(keepends=True)
    expected = "".join(lines[-count:]) if count else ""
    assert text[offset_of_last(path, count) :] == expected


def test_last_lines_are_those_of_a_terminal(tmp_path):
    path = tmp_path / "0.err"
    path.write_bytes(
        "first\r\n"
        "\r 10%|#   |\r 90%|### |\x1b[A\r100%|####|\r\n"
        "\x1b[1;31merror\x1b[0m: \x1b]0;a title\x07Größe\tist \x00\x08falsch".encode()
        + b"\xff\n"
    )
    assert last_lines(path, 9) == ["first", "100%|####|", "error: Größe    ist falsch�"]
    assert last_lines(path, 1) == ["error: Größe    ist falsch�"]
    assert last_lines(path, 0) == []
    assert last_lines(tmp_path / "none", 3) == []


def test_last_lines_of_a_long_file_are_whole(tmp_path):
    path = tmp_path / "0.err"
    path.write_text("".join(f"line {number}\n" for number in range(10_000)))
    assert last_lines(path, 3, max_bytes=25) == ["line 9998", "line 9999"]
    path.write_text("x" * 100)
    assert last_lines(path, 3, max_bytes=10) == ["x" * 10], "a line without an end is better than none"


def test_any_bytes_can_be_shown():
    data = random.Random(1).randbytes(200_000)
    text = "".join(shown_lines(data + "\u009b2J".encode()))
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in text)


def test_a_progress_bar_moves_on_the_terminal_and_nothing_else_does():
    assert for_terminal(b"\x1b[2J\x1b]0;title\x1b\\ 10%\r 20%\x07\n") == b" 10%\r 20%\n"
