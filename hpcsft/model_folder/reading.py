"""Small files of a model folder, and what is said of a file that is not what its name promises."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from hpcsft.errors import InputError

AGAIN = "download it again"
POINTER = b"version https://git-lfs"
"""What git leaves of a large file where git-lfs is not installed begins so."""


class Tensor(NamedTuple):
    """A tensor as the header of its file tells of it."""

    shape: tuple[int, ...]
    place: object
    """The same for tensors that share their memory."""


def read_object(file: Path, what: str = "config") -> dict[str, Any]:
    """The JSON object in `file`; {} if there is no such file; InputError if it is something else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not file.is_symlink():
            return {}
        raise unreadable(file, error) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read: {error}", _whole_again(file)) from None
    if not isinstance(value, dict):
        raise InputError(f"{file}: not a JSON object", f"is this the {what} of a Hugging Face model?")
    return value


def is_named(file: Path) -> bool:
    """Is there a file, or a link whose file is gone? Reading the latter tells so."""
    return file.is_file() or file.is_symlink()


def not_whole(file: Path, kind: str) -> InputError:
    """What an interrupted download leaves, or git without git-lfs; or the reason why `file` cannot be read at all."""
    try:
        hint = _whole_again(file)
    except OSError as error:
        return unreadable(file, error)
    return InputError(f"{file}: not a whole {kind} file", hint)


def unreadable(place: Path, error: OSError) -> InputError:
    """What the file system said about a file or a folder."""
    if isinstance(error, FileNotFoundError) and place.is_symlink():
        return InputError(f"{place}: link to a file that is gone: {os.readlink(place)}", AGAIN)
    permission = "ask its owner for permission to read it, and to enter the folders above it"
    hint = permission if isinstance(error, PermissionError) else "a file that can be read is expected"
    return InputError(f"{place}: cannot be read: {error.strerror or error}", hint)


def _whole_again(file: Path) -> str:
    """How to get `file` as it should be."""
    with open(file, "rb") as stream:
        pointer = stream.read(len(POINTER)) == POINTER
    return "it only points at the file: git lfs pull" if pointer else AGAIN
