"""Nothing is done that nobody has agreed to."""

from __future__ import annotations

import pytest

from hpcsft.question import agreed


@pytest.mark.parametrize(
    ("answer", "expected"), [("y", True), ("Yes", True), ("", False), ("no", False), (None, False)]
)
def test_only_a_yes_is_one(answer, expected, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

    def typed(question: str) -> str:
        assert question == "remove it? [y/N] "
        if answer is None:
            raise EOFError  # Ctrl-D
        return answer

    monkeypatch.setattr("builtins.input", typed)
    assert agreed("remove it?", yes=False) is (answer in ("y", "Yes"))


def test_nobody_is_asked_with_yes_and_nobody_agrees_without_a_terminal(monkeypatch):
    assert agreed("?", yes=True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert not agreed("?", yes=False)


def test_nobody_can_be_asked_where_the_input_was_closed(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)  # as `command <&-` leaves it
    assert not agreed("?", yes=False)
    assert agreed("?", yes=True)
