"""Small files of a model folder, and what is said of a file that is not what its name promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from hpcsft.errors import InputError

AGAIN = "download it again"


class Tensor(NamedTuple):
    """A tensor as the header of its file tells of it."""

    shape: tuple[int, ...]
    place: object
    """The same for tensors that share their memory."""


def read_object(file: Path, what: str = "config") -> dict[str, Any]:
    """The JSON object in `file`; {} if there is no such file; InputError if it is something else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read: {error}", AGAIN) from None
    if not isinstance(value, dict):
        raise InputError(f"{file}: not a JSON object", f"is this the {what} of a Hugging Face model?")
    return value


def not_whole(file: Path, kind: str) -> InputError:
    """What an interrupted download leaves, or git without git-lfs."""
    return InputError(f"{file}: not a whole {kind} file", AGAIN)
