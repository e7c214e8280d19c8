"""Do the first rows of a file look like what the spec says they are?"""

from __future__ import annotations

import itertools

from hpcsft.data.formats import RowError, conversation_of
from hpcsft.data.readers import read_rows
from hpcsft.errors import InputError

FIRST_ROWS = 20
"""Rows of a file that are looked at for a conversation."""


def check_first_rows(file: str, format: str) -> None:
    """InputError unless one of the first rows is a conversation; bad ones among good ones are for the quarantine."""
    wrong = None
    for row in itertools.islice(read_rows([file]), FIRST_ROWS):
        try:
            conversation_of(row.parse(), format)
            return
        except RowError as error:
            wrong = wrong or f"{file}, row {row.number}: {error}"
    if wrong is None:
        raise InputError(f"{file}: empty", "expected one conversation per line")
    raise InputError(wrong, "see data.format in the README")
