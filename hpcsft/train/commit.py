"""The commit protocol of checkpoints: whole or not there, whatever ends the writer at whatever moment.

    checkpoints/.staging-JOBID_RESTART/step-000200/   written by this attempt; every rank fsyncs its own files
    checkpoints/.staging-JOBID_RESTART/step-000200/complete.json    then the marker: size and sha256 of every file
    checkpoints/step-000200/                          then the rename
    checkpoints/latest                                then the pointer, for people; loading looks at the folders

A newer attempt removes the staging folders of older ones when it starts (`clear_staging`): the rename of an attempt
that was fenced off between its last check and its rename then fails, because there is nothing left to rename.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from hpcsft.attempt.fence import Fence
from hpcsft.records import Record, fsync_folder, now, read_json, write_json, write_text
from hpcsft.rundir import RunDir

COMPLETE = "complete.json"
STAGING = ".staging-"
REPLACED = ".replaced-"
CONVERTED = ".universal-"
BLOCK_BYTES = 1 << 20
BROKEN = (errno.ENOENT, errno.ENOTDIR, errno.EIO)
"""What a file that is missing or sits on a bad block is refused with."""


class FileFacts(Record):
    """Size and checksum of one file."""

    size_bytes: int
    sha256: str


class Complete(Record):
    """complete.json: what a checkpoint holds."""

    step: int
    world_size: int
    zero_stage: int
    attempt: str
    """JOBID_RESTART of the attempt that wrote it."""
    time: str
    files: dict[str, FileFacts]
    """Name relative to the folder -> facts."""
    digest: str = ""
    """sha256 of all that stands above, so that a damaged marker is found as well."""

    def signed(self) -> Complete:
        """The same with its digest."""
        content = self.model_dump(mode="json", exclude={"digest"})
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return self.model_copy(update={"digest": digest})


def staging_folder(run: RunDir, attempt: str, step: int) -> Path:
    """Where `attempt` (JOBID_RESTART) writes the checkpoint of `step`."""
    return run.checkpoints / f"{STAGING}{attempt}" / run.step_folder(step).name


def open_staging(folder: Path) -> None:
    """An empty folder to write into. What a save before it left there goes: it may be what fills the disk.

    FileNotFoundError if the run directory itself has gone.
    """
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.parent.parent.mkdir(mode=0o700, exist_ok=True)
    folder.parent.mkdir(mode=0o700)
    folder.mkdir(mode=0o700)


def clear_staging(run: RunDir) -> None:
    """Remove what other attempts were writing: a new attempt calls it once, right after it has claimed the run."""
    for leftover in [*run.checkpoints.glob(f"{STAGING}*"), *run.checkpoints.glob(f"{REPLACED}*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    for leftover in run.checkpoints.glob(".latest.*.tmp"):
        leftover.unlink(missing_ok=True)


def publish(
    run: RunDir, staged: Path, world_size: int, zero_stage: int, files: Mapping[str, FileFacts], fence: Fence
) -> None:
    """Make a staged checkpoint visible; its files are fsynced already.

    Raises Fenced when a newer attempt has taken the run over, and OSError when the filesystem refuses.
    """
    final = run.checkpoints / staged.name
    complete = Complete(
        step=int(staged.name.removeprefix("step-")),
        world_size=world_size,
        zero_stage=zero_stage,
        attempt=staged.parent.name.removeprefix(STAGING),
        time=now(),
        files=dict(files),
    )
    write_json(staged / COMPLETE, complete.signed())
    fsync_folder(staged)
    fence.check()
    if read_marker(final) is None:  # else another attempt has published the same step: the same bits
        if final.exists():
            os.rename(final, run.checkpoints / f"{REPLACED}{final.name}")
        os.rename(staged, final)
    fsync_folder(run.checkpoints)
    write_text(run.checkpoints / "latest", final.name + "\n")
    shutil.rmtree(staged.parent, ignore_errors=True)  # DeepSpeed leaves a script beside every checkpoint


def prune(run: RunDir, keep: int, fence: Fence) -> None:
    """Remove all but the newest `keep` checkpoints, and those that a newer one has replaced."""
    fence.check()
    for folder, _ in reversed(published(run)[keep:]):  # the oldest first
        (folder / COMPLETE).unlink()  # first the marker, so that half a removal is no checkpoint
        shutil.rmtree(folder, ignore_errors=True)
    passing = [folder for prefix in (REPLACED, CONVERTED) for folder in run.checkpoints.glob(f"{prefix}*")]
    for leftover in [*passing, *torn(run)]:
        shutil.rmtree(leftover, ignore_errors=True)


def distrust(folder: Path) -> None:
    """Take back the marker of a damaged checkpoint: it counts for nothing any more, and goes at the next save."""
    with contextlib.suppress(OSError):
        os.rename(folder / COMPLETE, folder / f"damaged-{COMPLETE}")


def torn(run: RunDir) -> list[Path]:
    """Folders of checkpoints whose marker is missing or damaged: half removed, or hit by a fault of the filesystem."""
    return [folder for folder in run.checkpoints.glob("step-*") if read_marker(folder) is None]


def published(run: RunDir) -> list[tuple[Path, Complete]]:
    """Folders and markers of the published checkpoints, the newest first; those with a damaged marker are left out."""
    found = [(folder, read_marker(folder)) for folder in run.checkpoints.glob("step-*")]
    whole = [(folder, complete) for folder, complete in found if complete]
    return sorted(whole, key=lambda item: item[1].step, reverse=True)


def read_marker(folder: Path) -> Complete | None:
    """complete.json of `folder`; None if it is missing or damaged."""
    try:
        complete = Complete.model_validate(read_json(folder / COMPLETE))
    except (ValueError, ValidationError):
        return None
    except OSError as error:
        return _unreadable(error)
    return complete if complete.digest == complete.signed().digest else None


def damaged(folder: Path, complete: Complete, names: Iterable[str]) -> list[str]:
    """Those of `names` whose bytes are not those that were written."""
    return [name for name in names if file_facts(folder / name) != complete.files[name]]


def file_facts(path: Path) -> FileFacts | None:
    """Size and checksum of a file; None if it cannot be read. Raises OSError when the filesystem itself is away."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
            return FileFacts(size_bytes=file.tell(), sha256=digest.hexdigest())
    except OSError as error:
        return _unreadable(error)


def _unreadable(error: OSError) -> None:
    """A file that is missing or broken is damage; a shared filesystem that is away says nothing about the file."""
    if error.errno not in BROKEN:
        raise error
