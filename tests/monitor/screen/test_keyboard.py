"""Guards the keys: what terminals send for them, and a terminal that is given back as it was."""

from __future__ import annotations

import os
import pty
import termios
import threading

import pytest

from hpcsft.monitor.screen.keyboard import Keyboard, keys


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"q", ["q"]),
        (b"jjk", ["j", "j", "k"]),
        (b"\x1b[A\x1b[B\x1bOC\x1b[D", ["up", "down", "right", "left"]),
        (b"\x1b[5~\x1b[6~ ", ["page up", "page down", "page down"]),
        (b"\r\n\x7f\x03", ["enter", "enter", "backspace", "ctrl-c"]),
        (b"\x1b", ["esc"]),
        (b"\x1bq", ["esc", "q"]),
        ("é?".encode(), ["é", "?"]),
        (b"\x1b[200~", ["\x1b[200~"]),  # a paste: a key without a name, which nothing answers to
        (b"\xff", ["\ufffd"]),
        (b"", []),
    ],
)
def test_what_terminals_send(sent, expected):
    assert keys(sent) == expected


@pytest.fixture
def terminal():
    """Both ends of a terminal: a person's, a program's."""
    person, program = pty.openpty()
    yield person, program
    os.close(person)
    os.close(program)


def test_a_key_comes_without_enter_and_the_terminal_is_given_back(terminal):
    person, program = terminal
    before = termios.tcgetattr(program)
    with Keyboard(program) as keyboard:
        os.write(person, b"q")
        assert keyboard.read() == ["q"]
        os.write(person, b"\x03")
        assert keyboard.read() == ["ctrl-c"], "no signal: the jobs are told to go on"
    assert termios.tcgetattr(program) == before


def test_an_arrow_key_that_comes_in_parts_is_one_key(terminal):
    person, program = terminal
    with Keyboard(program) as keyboard:
        os.write(person, b"\x1b")
        rest = threading.Timer(0.005, os.write, (person, b"[A"))
        rest.start()
        assert keyboard.read() == ["up"]
        rest.join()
