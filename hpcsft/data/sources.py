"""Where conversations come from: rows numbered over all files of a source, and which of them are drawn.

Shard k of a source holds the rows k * ROWS_PER_SHARD and on. Where it begins in its file is kept in an index, so that
a task of an array opens a file at its own rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcsft.data.hashing import mix
from hpcsft.data.readers import FileIndex, Mark, RawRow, find_files, index_file, read_file, state_of
from hpcsft.data.shards import SourceName
from hpcsft.errors import InputError
from hpcsft.records import read_json, write_json
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.data import DataSpec

ROWS_PER_SHARD = 4096

ROWS_VERSION = 1
"""Raised when the same data, tokenizer and rules give other rows than before, so that no cache serves the old ones."""


class Draw(NamedTuple):
    """A random sample of rows without a list of them: those whose hashed number is at most `most`."""

    seed: int
    most: int

    @classmethod
    def of(cls, sample: float | int | None, total: int, seed: int) -> Draw | None:
        """`sample` rows (or that share, at least one) of `total`; None for all."""
        if sample is None:
            return None
        count = sample if isinstance(sample, int) else max(1, round(sample * total))
        if count >= total:
            return None
        return cls(seed, int(np.partition(cls._hashes(range(total), seed), count - 1)[count - 1]))

    def among(self, numbers: range) -> set[int]:
        """The rows of `numbers` that are drawn."""
        chosen = self._hashes(numbers, self.seed) <= np.uint64(self.most)
        return set((np.flatnonzero(chosen) + numbers.start).tolist())

    @staticmethod
    def _hashes(numbers: range, seed: int) -> np.ndarray:
        return mix(np.arange(numbers.start, numbers.stop, dtype=np.uint64), seed)


@dataclass
class Source:
    """The files of `data.train`, or those of `data.validation`."""

    name: SourceName
    files: list[FileIndex]
    draw: Draw | None
    fingerprint: str
    """Digest of all that decides the rows that are made of it."""
    states: dict[str, str]
    """File -> `readers.state_of` it."""
    _open: tuple[int, Iterator[RawRow]] | None = field(default=None, compare=False, repr=False)
    """The next row and what goes on from it: a compressed file can be entered at its beginning only."""

    @property
    def total(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)

    @property
    def num_shards(self) -> int:
        """Shards of this source."""
        return -(-self.total // ROWS_PER_SHARD)

    def rows(self, shard: int) -> Iterator[tuple[int, RawRow]]:
        """The rows of a shard that are drawn, with their numbers.

        InputError at the end if a file is no longer what it was when the source was found.
        """
        numbers = range(shard * ROWS_PER_SHARD, min((shard + 1) * ROWS_PER_SHARD, self.total))
        drawn = set(numbers) if self.draw is None else self.draw.among(numbers)
        rows = self._open[1] if self._open and self._open[0] == numbers.start else self._read(numbers.start)
        self._open = None
        for number, row in zip(numbers, rows, strict=False):  # in this order zip takes no row too many
            if number in drawn:
                yield number, row
        self._open = numbers.stop, rows
        begin = 0
        for file in self.files:
            read = max(begin, numbers.start) < min(begin + file.rows, numbers.stop)
            if read and state_of(file.file) != self.states[file.file]:
                hint = "run preprocessing again when it is complete"
                raise InputError(f"{file.file}: changed while it was read", hint)
            begin += file.rows

    def _read(self, start: int) -> Iterator[RawRow]:
        for file in self.files:
            if start < file.rows:
                yield from read_file(file.file, file, start)
            start = max(0, start - file.rows)


def find_sources(spec: ExperimentSpec, rules: Sequence[Any], index_folder: Path | None) -> list[Source]:
    """The source of the training files, and that of the validation files if there are any.

    `rules` is what decides rows besides data and the rules of `data`: the tokenizer and the text of the template.
    What was learnt about files is kept in `index_folder`. InputError if a file is missing or cannot be read.
    """
    patterns: list[tuple[SourceName, list[str]]] = [("train", spec.data.train)]
    if isinstance(spec.data.validation, list):
        patterns.append(("validation", spec.data.validation))
    sources = []
    for name, wanted in patterns:
        states = [(file, state_of(file)) for file in find_files(wanted, f"data.{name}")]
        files = [_index(file, state, index_folder) for file, state in states]
        draw = Draw.of(spec.data.sample, sum(f.rows for f in files), spec.seed) if name == "train" else None
        fingerprint = _digest(name, _version(), states, draw, rules, _row_rules(spec.data))
        sources.append(Source(name, files, draw, fingerprint, dict(states)))
    return sources


def _row_rules(data: DataSpec) -> Any:
    return data.model_dump(mode="json", include={"format", "filter", "template", "mask", "max_length", "overlong"})


def _index(file: str, state: str, folder: Path | None) -> FileIndex:
    """The index of `file`, from `folder` if it is known there. What cannot be read or written there is done without."""
    known = folder / f"{_digest(file, state, _version())}.json" if folder else None
    if known:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            found = read_json(known)
            return FileIndex(found["file"], found["rows"], [Mark(*mark) for mark in found["marks"]])
    index = index_file(file, ROWS_PER_SHARD)
    if known:
        with contextlib.suppress(OSError):
            known.parent.mkdir(mode=0o700, exist_ok=True)
            write_json(known, index._asdict())
    return index


def _digest(*facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _version() -> list[int]:
    return [ROWS_VERSION, ROWS_PER_SHARD]
