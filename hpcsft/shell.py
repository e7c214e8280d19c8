"""The one way by which a string becomes part of a shell line."""

from __future__ import annotations

import shlex
from collections.abc import Iterable


def quoted(text: object) -> str:
    """`text` as one word of a POSIX shell, whatever is in it. ValueError for a NUL, which no argument can hold."""
    word = str(text)
    if "\0" in word:
        raise ValueError("a NUL character cannot be part of a command")
    return shlex.quote(word)


def command(words: Iterable[object]) -> str:
    """A command line of these words, each quoted."""
    return " ".join(quoted(word) for word in words)
