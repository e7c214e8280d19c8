"""Shards that several runs share: made once in a cache beside the runs, hard-linked into each run's own folder.

The cache may be removed at any time: a run keeps its links. On a filesystem without hard links shards are copied.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from pathlib import Path

from hpcsft.data.shards import Shard, SourceName, shard_files
from hpcsft.records import fsync_folder, read_json

LEFTOVER_S = 24 * 3600


def usable_cache(folder: Path) -> bool:
    """Make the cache, private to the user, if it is not there. False if it is another user's or cannot be made."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if {folder.lstat().st_uid, folder.stat().st_uid} != {os.geteuid()}:
            return False
        folder.chmod(0o700)  # who made it may have done so with another umask
        return os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    except OSError:
        return False


def whole_shard(folder: Path, source: SourceName, number: int, fingerprint: str) -> Shard | None:
    """The shard in `folder`, None if it is not there, not whole, or was made of other data or by other rules."""
    files = shard_files(folder, source, number)
    try:
        shard = Shard.model_validate(read_json(files.record))
        whole = shard.fingerprint == fingerprint and files.rows.stat().st_size == shard.size_bytes
        return shard if whole and (files.quarantine.exists() or not shard.bad_rows) else None
    except (OSError, ValueError):
        return None


def take_shard(cache: Path, folder: Path, source: SourceName, number: int) -> None:
    """Link a whole shard of `cache` into `folder`, its record last. FileNotFoundError if the cache was removed."""
    theirs, ours = shard_files(cache, source, number), shard_files(folder, source, number)
    _link(theirs.rows, ours.rows)
    if theirs.quarantine.exists():
        _link(theirs.quarantine, ours.quarantine)
    else:
        ours.quarantine.unlink(missing_ok=True)  # of what stood there before
    _link(theirs.record, ours.record)
    fsync_folder(folder)


def remove_leftovers(folder: Path, source: SourceName, number: int) -> None:
    """Remove what killed tasks left of a shard; a file that is a day old is nobody's any more."""
    for leftover in folder.glob(f".{source}-{number:05d}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_S:
                leftover.unlink()


def _link(origin: Path, name: Path) -> None:
    temporary = name.with_name(f".{name.name}.{secrets.token_hex(8)}.tmp")
    try:
        try:
            os.link(origin, temporary)
        except FileNotFoundError:
            raise
        except OSError:  # another filesystem, or one without hard links
            shutil.copyfile(origin, temporary)
        os.replace(temporary, name)
    finally:
        temporary.unlink(missing_ok=True)
