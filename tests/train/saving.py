"""Small checkpoints through the real commit protocol, without torch: plain files in place of DeepSpeed's."""

from __future__ import annotations

import os
from pathlib import Path

from hpcsft.attempt.fence import Fence, Token
from hpcsft.rundir import RunDir
from hpcsft.train import commit

WORLD_SIZE = 2


def fence(run: RunDir, restart: int = 0) -> Fence:
    return Fence(run, "train", 0, 1, Token(job_id="44", restart=restart))


def begin(run: RunDir, restart: int) -> Fence:
    """What a new attempt does before it looks for a checkpoint."""
    own = fence(run, restart)
    own.claim()
    commit.clear_staging(run)
    return own


def write_files(folder: Path, step: int) -> dict[str, commit.FileFacts]:
    """What the ranks would write, a file of each and a common one, some bytes at a time."""
    found = {}
    for name in ("common.pt", *(f"rank-{rank:05d}.pt" for rank in range(WORLD_SIZE))):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        for part in range(3):
            os.write(file, f"{name} of step {step}, part {part}; ".encode() * 20)
        os.fsync(file)
        os.close(file)
        facts = commit.file_facts(folder / name)
        assert facts
        found[name] = facts
    return found


def stage(run: RunDir, step: int, own: Fence) -> tuple[Path, dict[str, commit.FileFacts]]:
    """A checkpoint that is written and not published."""
    folder = commit.staging_folder(run, str(own.token), step)
    commit.open_staging(folder)
    return folder, write_files(folder, step)


def save(run: RunDir, step: int, own: Fence, keep: int = 2) -> None:
    """A whole save, as `Checkpointer` does it."""
    folder, files = stage(run, step, own)
    commit.publish(run, folder, WORLD_SIZE, 2, files, own)
    commit.prune(run, keep, own)


def whole(run: RunDir) -> list[int]:
    """Steps of the checkpoints that would be loaded, the newest first."""
    found = commit.published(run)
    return [complete.step for folder, complete in found if not commit.damaged(folder, complete, complete.files)]


def leftovers(run: RunDir) -> list[str]:
    """What belongs to no published checkpoint."""
    listed = {folder.name for folder, _ in commit.published(run)} | {"latest"}
    return sorted(path.name for path in run.checkpoints.iterdir() if path.name not in listed)


def damage(file: Path) -> None:
    """Flip a bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
