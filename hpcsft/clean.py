"""Removes checkpoints that a run needs no more. Exported models are never touched.

A folder is renamed to a name that no reader takes for a checkpoint before it is removed, and `latest` is set before
that: whatever ends this in between, no half of a checkpoint is left that looks like one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hpcsft.disk_use import folder_bytes, size_text
from hpcsft.errors import HpcsftError
from hpcsft.monitor.look import look_at
from hpcsft.records import Record, fsync_folder, write_text
from hpcsft.rundir import RunDir
from hpcsft.train.commit import CONVERTED, REPLACED, STAGING, Complete, published, torn

KEEP_UNFINISHED = 1
"""Whole checkpoints that are kept where training may go on, unless more are asked for."""


class Cleaning(Record):
    """What would be removed from one run, and what stays."""

    kept: list[str]
    """Names of the checkpoints that stay, the newest first."""
    removed: list[str]
    """Names of checkpoints that go, the newest first."""
    leftovers: list[str]
    """Names of what kills, conversions and damage have left."""
    freed_bytes: int

    @property
    def empty(self) -> bool:
        """Is there nothing to remove?"""
        return not (self.removed or self.leftovers)


class Chosen(NamedTuple):
    """One run that may be cleaned."""

    run: RunDir
    state: str
    """Of its training."""
    cleaning: Cleaning


def look_over(runs: Sequence[RunDir], keep: int | None) -> tuple[list[Chosen], list[HpcsftError]]:
    """What there is to remove from each run that has anything to remove, and why others are refused.

    Raises ClusterError when Slurm does not answer: then nobody knows whose training runs.
    """
    chosen, refused = [], []
    for run, state in zip(runs, look_at(runs, detailed=False), strict=True):
        if state.lost:
            refused.append(HpcsftError(f"{run.path.name}: {state.lost}", "nothing of it was touched"))
            continue
        training = next((stage.state for stage in state.stages if stage.name == "train"), "unsubmitted")
        try:
            cleaning = plan_cleaning(run, checkpoints_to_keep(training, keep))
        except HpcsftError as error:
            refused.append(HpcsftError(f"{run.path.name}: {error.message}", error.hint))
            continue
        if not cleaning.empty:
            chosen.append(Chosen(run, training, cleaning))
    return chosen, refused


def checkpoints_to_keep(state: str, keep: int | None) -> int:
    """How many whole checkpoints stay when training is in `state`. HpcsftError if none may be touched, or so few."""
    if state in ("pending", "running"):
        raise HpcsftError(f"its training is {state}", "it removes old checkpoints itself; cancel it first, or wait")
    if state == "done":
        return keep or 0
    if keep == 0:
        raise HpcsftError(f"its training is {state}: the newest checkpoint has to stay", "--keep 1 is the least")
    return keep or KEEP_UNFINISHED


def plan_cleaning(run: RunDir, keep: int) -> Cleaning:
    """What to remove so that the newest `keep` whole checkpoints stay; if there are fewer, no checkpoint goes.

    HpcsftError if the run is not the user's own.
    """
    run.for_writing()
    found = published(run)
    whole = [folder for folder, complete in found if _has_its_files(folder, complete)]
    kept = whole[:keep]
    enough = len(kept) == keep
    going = [folder for folder, _ in found if folder not in kept] if enough else []
    prefixes = (STAGING, REPLACED, CONVERTED)
    leftovers = [path for prefix in prefixes for path in run.checkpoints.glob(f"{prefix}*")] + torn(run)
    return Cleaning(
        kept=[folder.name for folder in (kept if enough else [folder for folder, _ in found])],
        removed=[folder.name for folder in going],
        leftovers=sorted(path.name for path in leftovers),
        freed_bytes=sum(folder_bytes(path) for path in [*going, *leftovers]),
    )


def clean(run: RunDir, cleaning: Cleaning) -> int:
    """Remove what `cleaning` names; returns the bytes that were freed. HpcsftError if something resists."""
    freed = 0
    try:
        _point_latest(run, cleaning.kept)
        for name in cleaning.leftovers:  # first: one of them may have the name that a checkpoint gets
            freed += _remove(run.checkpoints / name)
        for name in reversed(cleaning.removed):  # the oldest first
            aside = run.checkpoints / f"{REPLACED}{name}"
            os.rename(run.checkpoints / name, aside)
            fsync_folder(run.checkpoints)
            freed += _remove(aside)
    except OSError as error:
        message = f"{run.path}: {error.filename or run.checkpoints}: {error.strerror}"
        raise HpcsftError(message, f"{size_text(freed)} were freed before; run it again when that is mended") from None
    return freed


def cleaning_lines(run: RunDir, cleaning: Cleaning, state: str) -> list[str]:
    """What would go and what stays, in words."""
    lines = [f"{run.path}  (training {state})"]
    if cleaning.removed:
        lines.append(f"  remove  {', '.join(cleaning.removed)}")
    if cleaning.leftovers:
        lines.append(f"  remove  {', '.join(cleaning.leftovers)}  (leftovers)")
    models = sorted(path.name for path in run.models.glob("epoch-*"))
    stays = [*cleaning.kept, *(f"models/{name}" for name in models)]
    if stays:
        lines.append(f"  keep    {', '.join(stays)}")
    return [*lines, f"  free    {size_text(cleaning.freed_bytes)}"]


def _has_its_files(folder: Path, complete: Complete) -> bool:
    """Are all files there, at their sizes? Checksums are for whoever loads it."""
    try:
        return all((folder / name).stat().st_size == facts.size_bytes for name, facts in complete.files.items())
    except FileNotFoundError:
        return False


def _point_latest(run: RunDir, kept: Sequence[str]) -> None:
    latest = run.checkpoints / "latest"
    if kept:
        write_text(latest, f"{kept[0]}\n")
    else:
        latest.unlink(missing_ok=True)


def _remove(folder: Path) -> int:
    """Remove a folder; returns the bytes that it held."""
    size = folder_bytes(folder)
    shutil.rmtree(folder)
    return size
