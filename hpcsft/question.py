"""Asks before something is done that cannot be taken back."""

from __future__ import annotations

import sys


def agreed(question: str, yes: bool) -> bool:
    """Does the person at the terminal say yes? With `yes` nobody is asked; without a terminal nobody can be."""
    if yes:
        return True
    if sys.stdin is None or not sys.stdin.isatty():  # it is None where it was closed
        return False
    try:
        return input(f"{question} [y/N] ").lower().startswith("y")
    except EOFError:  # Ctrl-D
        return False
