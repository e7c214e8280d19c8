"""The header of a safetensors file: 8 bytes of length, then JSON (https://huggingface.co/docs/safetensors)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpcsft.model_folder.reading import Tensor, not_whole

LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Every tensor by its name; InputError if the file is not whole."""
    return {name: tensor for name, (tensor, _) in _read(file).items()}


def extents(file: Path) -> dict[str, tuple[int, int]]:
    """By the name of a tensor, where its bytes in the file begin and end; InputError if the file is not whole."""
    return {name: extent for name, (_, extent) in _read(file).items()}


def _read(file: Path) -> dict[str, tuple[Tensor, tuple[int, int]]]:
    try:
        with open(file, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > LONGEST_HEADER:
                raise ValueError("no header")
            header = json.loads(stream.read(length))
            start = stream.tell()
        tensors = {name: _entry(file, name, entry, start) for name, entry in header.items() if name != "__metadata__"}
        if file.stat().st_size < max((end for _, (_, end) in tensors.values()), default=0):
            raise ValueError("cut off")
        return tensors
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise not_whole(file, "safetensors") from None


def _entry(file: Path, name: str, entry: Any, start: int) -> tuple[Tensor, tuple[int, int]]:
    begin, end = entry["data_offsets"]
    return Tensor(_sizes(entry["shape"]), (file, name)), (start + begin, start + end)


def _sizes(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise ValueError("no shape")
    return tuple(shape)
