"""What runs take on the disk, by part. Sizes are those of the files; links are not followed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import computed_field

from hpcsft.records import Record
from hpcsft.rundir import RunDir


class DiskUse(Record):
    """What one run takes, in bytes."""

    checkpoints_bytes: int = 0
    models_bytes: int = 0
    data_bytes: int = 0
    rest_bytes: int = 0
    shared_bytes: int = 0
    """Of all that: files that are linked from elsewhere too, such as shards in RUNS_DIR/.cache."""

    @computed_field
    @property
    def total_bytes(self) -> int:
        """Everything."""
        return self.checkpoints_bytes + self.models_bytes + self.data_bytes + self.rest_bytes


class File(NamedTuple):
    """What tells a file from all others, and its size."""

    device: int
    inode: int
    links: int
    size_bytes: int


class DiskMeter:
    """Measures runs one after the other. In the sum a file that several of them share counts once."""

    def __init__(self) -> None:
        self.total_bytes = 0
        self.shared_bytes = 0
        """Of the sum: files that are linked more than once."""
        self._seen: set[tuple[int, int]] = set()

    def measure(self, run: RunDir) -> DiskUse:
        """What `run` takes; what cannot be read counts for nothing."""
        parts = {"checkpoints": 0, "models": 0, "data": 0, "rest": 0}
        shared = 0
        known = {folder.name: folder.name for folder in (run.checkpoints, run.models, run.data)}
        own: set[tuple[int, int]] = set()
        for name, file in _files_by_entry(run.path):
            if file.links > 1:
                if (file.device, file.inode) in own:
                    continue
                own.add((file.device, file.inode))
                shared += file.size_bytes
            parts[known.get(name, "rest")] += file.size_bytes
            self._add(file)
        return DiskUse(**{f"{name}_bytes": size for name, size in parts.items()}, shared_bytes=shared)

    def _add(self, file: File) -> None:
        if file.links > 1:
            if (file.device, file.inode) in self._seen:
                return
            self._seen.add((file.device, file.inode))
            self.shared_bytes += file.size_bytes
        self.total_bytes += file.size_bytes


def folder_bytes(folder: Path) -> int:
    """What a folder takes, with all that is in it; 0 if it is not there."""
    return sum(file.size_bytes for file in _files(str(folder)))


def size_text(num_bytes: float) -> str:
    """Three digits and a decimal unit, as disks and quotas are counted.

    >>> size_text(14_960_000_000)
    '15.0 GB'
    """
    if num_bytes < 999.5:
        return f"{num_bytes:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        num_bytes /= 1000
        if num_bytes < 999.5 or unit == "TB":
            return f"{num_bytes:.{0 if num_bytes >= 99.95 else 1}f} {unit}"
    raise AssertionError("unreachable")


def _files_by_entry(folder: Path) -> Iterator[tuple[str, File]]:
    """Every file below `folder`, with the name of the entry of `folder` that it is in."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                for file in _files(entry.path):
                    yield entry.name, file
            else:
                yield from ((entry.name, file) for file in _file(entry))


def _files(folder: str) -> Iterator[File]:
    waiting = [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield from _file(entry)


def _file(entry: os.DirEntry[str]) -> Iterator[File]:
    with contextlib.suppress(OSError):  # it has gone in the meantime
        facts = entry.stat(follow_symlinks=False)
        yield File(facts.st_dev, facts.st_ino, facts.st_nlink, facts.st_size)
