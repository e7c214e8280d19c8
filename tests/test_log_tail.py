"""Logs are read from their ends: nothing twice, nothing lost, and nothing that would upset a terminal."""

from __future__ import annotations

import os
import random

import pytest

from hpcsft.log_tail import CHUNK_BYTES, Tail, TerminalText, last_lines, offset_of_last, one_line, shown_lines


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


def is_safe(text: str) -> bool:
    """Is there no control character in it, of either block, but for those that end a line or move a progress bar?"""
    return not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in text if letter not in "\t\n\r")


def test_any_bytes_can_be_shown():
    data = random.Random(1).randbytes(200_000)
    lines = shown_lines(data + "\u009b2J\u009d0;a title\u009cend".encode())
    assert is_safe("".join(lines)) and lines[-1].endswith("end") and "title" not in lines[-1]


@pytest.mark.parametrize(
    "log",
    [
        b"\x1b[2J\x1b]0;title\x1b\\ 10%\r 20%\x07\n",
        b" \xc2\x9b2J10%\xc2\x9d0;title\xc2\x9c\r \x1b[1;31m2\xc2\x850\x1b[0m%\n",
    ],
)
def test_a_progress_bar_moves_on_the_terminal_and_nothing_else_does(log):
    assert TerminalText().feed(log) == " 10%\r 20%\n"
    text = TerminalText()
    assert "".join(text.feed(log[place : place + 1]) for place in range(len(log))) == " 10%\r 20%\n"


def test_a_part_that_ends_in_the_middle_is_shown_whole():
    log = "Größe 模型 \x1b[1m😀\x1b[0m \x1b]0;ein Titel\x1b\\Ende\n".encode()
    for place in range(len(log)):
        text = TerminalText()
        assert text.feed(log[:place]) + text.feed(log[place:]) == "Größe 模型 😀 Ende\n", place


def test_what_never_ends_withholds_no_text():
    text = TerminalText()
    assert text.feed(b"before\x1b]0;" + b"x" * 1000) == "before]0;" + "x" * 1000
    assert text.feed(b"\x1b]8;\nnext line\n\x1b") == "]8;\nnext line\n"


def test_nothing_of_any_bytes_moves_the_terminal_however_they_are_cut():
    chance = random.Random(2)
    data = chance.randbytes(100_000) + bytes(chance.choices(b"\x1b[]\\\x07\xc2\x9b\x9d;2Jx\n", k=100_000))
    text, shown = TerminalText(), ""
    while data:
        size = chance.randrange(1, 2000)
        shown, data = shown + text.feed(data[:size]), data[size:]
    assert is_safe(shown)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("as it is: Größe 模型 😀", "as it is: Größe 模型 😀"),
        ("", ""),
        ("one\ntwo\r\n\n\n  three\r\n", "one / two / three"),
        ("one\rtwo\x0bthree\x85four\u2028five", "one / two / three / four / five"),
        ("\x1b]0;owned\x07a\x1b[2J\x1b[31mb\tc\x9b2Jd\x00\x08\x7f", "ab cd"),
        ("\u202egpj.exe\u2066\u200f", "gpj.exe"),
        ("half \udc80", "half \N{REPLACEMENT CHARACTER}"),
        ("x" * 10_000, "x" * 10_000),
    ],
)
def test_a_message_is_one_line_that_moves_nothing(text, line):
    assert one_line(text) == line


def test_any_text_is_one_line():
    chance = random.Random(3)
    text = "".join(chr(chance.randrange(0x3000)) for _ in range(100_000)) + "\udc80"
    line = one_line(text)
    assert line.splitlines() == [line] and "\t" not in line and is_safe(line) and line.encode()
