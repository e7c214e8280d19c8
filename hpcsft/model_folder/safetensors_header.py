"""The header of a safetensors file: 8 bytes of length, then JSON (https://huggingface.co/docs/safetensors)."""

from __future__ import annotations

import json
from pathlib import Path

from hpcsft.model_folder.reading import Tensor, not_whole

LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Every tensor by its name; InputError if the file is not whole."""
    try:
        with open(file, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > LONGEST_HEADER:
                raise ValueError("no header")
            header = json.loads(stream.read(length))
            end_of_header = stream.tell()
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        if file.stat().st_size < end_of_header + max((e["data_offsets"][1] for e in entries.values()), default=0):
            raise ValueError("cut off")
        return {name: Tensor(_sizes(entry["shape"]), (file, name)) for name, entry in entries.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise not_whole(file, "safetensors") from None


def _sizes(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise ValueError("no shape")
    return tuple(shape)
