"""Checkpoints that are whole or not there.

    checkpoints/.step-000200.ATTEMPT.partial/   being written
    checkpoints/step-000200/                    renamed after complete.json, its last file, was written
    checkpoints/latest                          name of the newest whole one

complete.json holds the size and sha256 of every file; what does not match them is never loaded.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hpcsft.errors import StageError
from hpcsft.records import Record, fsync_folder, now, read_json, write_json, write_text
from hpcsft.rundir import RunDir
from hpcsft.stage import StageContext
from hpcsft.train.distributed import Ranks

COMPLETE = "complete.json"


class FileFacts(Record):
    """Size and checksum of one file."""

    size_bytes: int
    sha256: str


class Complete(Record):
    """complete.json: what a checkpoint holds."""

    step: int
    world_size: int
    time: str
    files: dict[str, FileFacts]


def save_checkpoint(engine: Any, context: StageContext, ranks: Ranks, step: int) -> None:
    """Save the states after `step` optimizer steps. All ranks call it; it returns when the checkpoint is published."""
    run = context.run
    final = run.step_folder(step)
    attempt = f"{context.task.job_id}_{context.task.restart}"
    partial = run.checkpoints / f".{final.name}.{attempt}.partial"
    if ranks.leader:
        run.checkpoints.mkdir(mode=0o700, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    ranks.barrier()
    engine.save_checkpoint(str(run.checkpoints), tag=partial.name, save_latest=False)
    torch.save(_random_states(), partial / _random_file(ranks.rank))
    ranks.barrier()
    names = ranks.from_leader(lambda: _files(partial))
    digests: list[Any] = [None] * ranks.world_size
    dist.all_gather_object(digests, _digests(partial, _share(names, ranks), sync=True))
    if ranks.leader:
        files = {name: facts for share in digests for name, facts in share.items()}
        complete = Complete(step=step, world_size=ranks.world_size, time=now(), files=files)
        write_json(partial / COMPLETE, complete)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(partial, final)
        fsync_folder(run.checkpoints)
        write_text(run.checkpoints / "latest", final.name + "\n")
        _prune(run, context.spec.train.checkpoint.keep_last)
    ranks.barrier()


def load_checkpoint(engine: Any, context: StageContext, ranks: Ranks) -> int:
    """Load the newest checkpoint that is whole on every rank and return its step; 0 if there is none.

    A checkpoint that does not match its checksums is passed over, and the log says so. Raises StageError
    when it was written by another number of ranks.
    """
    for name, document in ranks.from_leader(lambda: _published(context.run)):
        folder, complete = context.run.checkpoints / name, Complete.model_validate(document)
        mine = _share(list(complete.files), ranks)
        found = _digests(folder, mine, sync=False)
        if not ranks.all_agree(found == {name: complete.files[name] for name in mine}):
            context.say(f"checkpoint {folder.name} is damaged; falling back to the one before")
            continue
        if complete.world_size != ranks.world_size:
            message = (
                f"checkpoint {folder.name} was written by {complete.world_size} ranks, this job has {ranks.world_size}"
            )
            raise StageError(message, "resume on the same number of ranks")
        path, _ = engine.load_checkpoint(str(context.run.checkpoints), tag=folder.name)
        if path is None:
            raise StageError(f"DeepSpeed could not load the checkpoint {folder.name}", "the log above tells more")
        _restore_random_states(torch.load(folder / _random_file(ranks.rank), weights_only=True))
        return complete.step
    return 0


def _published(run: RunDir) -> list[tuple[str, Any]]:
    """Names and markers of the whole checkpoints, the newest first."""
    return [(folder.name, read_json(folder / COMPLETE)) for folder in _newest_first(run)]


def _newest_first(run: RunDir) -> list[Path]:
    folders = [folder for folder in run.checkpoints.glob("step-*") if (folder / COMPLETE).exists()]
    return sorted(folders, key=lambda folder: int(folder.name.removeprefix("step-")), reverse=True)


def _prune(run: RunDir, keep: int) -> None:
    for folder in _newest_first(run)[keep:]:
        (folder / COMPLETE).unlink()  # first the marker, so that half a removal is no checkpoint
        shutil.rmtree(folder, ignore_errors=True)
    for leftover in run.checkpoints.glob(".step-*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)


def _files(folder: Path) -> list[str]:
    """All files below `folder`, relative to it."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def _share(names: list[str], ranks: Ranks) -> list[str]:
    """The files whose checksums are this rank's work."""
    return sorted(names)[ranks.rank :: ranks.world_size]


def _digests(folder: Path, names: list[str], sync: bool) -> dict[str, FileFacts]:
    """Sizes and checksums of those of `names` that can be read."""
    facts = {}
    for name in names:
        digest = hashlib.sha256()
        try:
            with open(folder / name, "rb") as file:
                if sync:
                    os.fsync(file.fileno())
                while block := file.read(1 << 20):
                    digest.update(block)
                facts[name] = FileFacts(size_bytes=file.tell(), sha256=digest.hexdigest())
        except OSError:
            if sync:
                raise
    return facts


def _random_file(rank: int) -> str:
    return f"random-states-rank-{rank:05d}.pt"


def _random_states() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_random_states(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
