"""Saving and loading of training states by all ranks together, over the commit protocol of `commit.py`.

A periodic checkpoint is copied to the memory of the host and written in the background; it is published at the first
step boundary at which all ranks have written their files. A checkpoint that cannot be written is told and passed over:
training goes on, and the one before stays.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hpcsft.attempt.heartbeat import Heartbeat
from hpcsft.errors import Fenced, StageError
from hpcsft.stage import StageContext
from hpcsft.train import commit, universal
from hpcsft.train.base_model import fingerprint, frozen_names
from hpcsft.train.commit import Complete
from hpcsft.train.distributed import Ranks
from hpcsft.train.host_memory import fits
from hpcsft.train.nonfinite import has_finite_states
from hpcsft.train.randomness import random_states, restore_random_states, seed_anew
from hpcsft.train.snapshot import SnapshotEngine, snapshot_bytes


class Checkpointer:
    """Writes the checkpoints of one attempt. All ranks call every method alike."""

    def __init__(self, engine: Any, context: StageContext, ranks: Ranks, before_publish: Callable[[], None]):
        self.engine = engine
        self.context = context
        self.ranks = ranks
        self.before_publish = before_publish
        self.writer = SnapshotEngine()
        self.writer.left_out = frozen_names(engine.module)
        engine.checkpoint_engine = self.writer
        self.base = fingerprint(context.spec.model.path) if self.writer.left_out and ranks.leader else None
        """Tells the model whose weights are left out from others; None if none are. Known to rank 0."""
        self.background = False
        """May periodic checkpoints be written while training goes on?"""
        self.newest = 0
        """Step of the newest checkpoint that was begun or loaded."""
        saved = [row["took_s"] for row in context.journal.rows() if row["event"] == "saved"] if ranks.leader else []
        self.longest_s = max(saved, default=0.0)
        """Longest time from the beginning of a checkpoint to its publication, as rank 0 knows from all attempts."""
        self._staged: Path | None = None
        self._began_s = 0.0
        self._held_s = 0.0

    @property
    def pending(self) -> bool:
        """Is there a checkpoint that is not published yet? The same on all ranks."""
        return self._staged is not None

    @property
    def written(self) -> bool:
        """Has this rank written its part of the pending checkpoint?"""
        return not self.writer.writing

    def reserve(self) -> None:
        """Set memory aside for copies, if every host has it. Call after the first step: then all states are there."""
        if not self.context.spec.train.checkpoint.background:
            return
        mine = snapshot_bytes(self.engine)
        needs = self.ranks.gather((socket.gethostname(), mine))
        here = sum(num_bytes for host, num_bytes in needs if host == socket.gethostname())
        ready = fits(here) and not _attempt(lambda: self.writer.reserve(mine))
        self.background = self.ranks.all_agree(ready)
        if not self.background:
            self._tell(f"no room for a copy of {here / 2**30:.1f} GiB on every host: checkpoints hold training up")

    def save(self, step: int, background: bool) -> None:
        """Save the states after `step` optimizer steps; in the background, or published when this returns.

        Raises StageError on all ranks if they are not finite.
        """
        if not self.ranks.all_agree(has_finite_states(self.engine)):
            raise StageError(
                f"after step {step} the weights are not finite; nothing of them was saved",
                "the checkpoint before is whole; a lower learning rate, warm-up or float32 usually cures it",
            )
        if self.pending:
            self.publish()
        self._began_s = time.monotonic()
        staged = commit.staging_folder(self.context.run, str(self.context.task.token), step)
        refused = self.ranks.from_leader(lambda: _attempt(lambda: commit.open_staging(staged)))
        if refused:
            self._tell(f"checkpoint of step {step} was not saved: {refused}; the one before stays")
            return
        background = background and self.background
        self.writer.begin(background)
        state = universal.client_state(self.engine, self.context.spec.train.zero_stage)
        self.engine.save_checkpoint(
            str(staged.parent),
            tag=staged.name,
            client_state=state,
            save_latest=False,
            exclude_frozen_parameters=bool(self.writer.left_out),
        )
        own = {"step": step, "rank": self.ranks.rank, "world_size": self.ranks.world_size, "random": random_states()}
        own["base"] = self.base
        self.writer.save(own, str(staged / _rank_file(self.ranks.rank)))
        self.writer.start()
        self._staged, self.newest, self._held_s = staged, step, time.monotonic() - self._began_s
        if not background:
            self.publish()

    def publish(self) -> None:
        """Wait until every rank has written its files, and make the checkpoint visible."""
        staged = self._staged
        assert staged is not None
        self._staged = None
        mine: dict[str, Any] = {}
        refused = _attempt(lambda: mine.update(self.writer.finish()), Exception)
        shares = self.ranks.gather((refused, {os.path.relpath(name, staged): mine[name] for name in mine}))
        refused = next((refused for refused, _ in shares if refused), None)
        files = {name: facts for _, share in shares for name, facts in share.items()}
        if not refused:  # a fenced attempt goes on to the next boundary, where all ranks find out together
            refused = self.ranks.from_leader(lambda: _attempt(lambda: self._commit(staged, files), (OSError, Fenced)))
        step = int(staged.name.removeprefix("step-"))
        if refused:
            self.newest = 0
            self._tell(f"checkpoint of step {step} was not saved: {refused}; the one before stays")
            return
        took_s = time.monotonic() - self._began_s
        self.longest_s = max(self.longest_s, took_s)
        self._tell(f"published {staged.name} after {took_s:.1f} s, {self._held_s:.1f} s of them held up training")

    def _commit(self, staged: Path, files: dict[str, Any]) -> None:
        context, spec = self.context, self.context.spec
        self.before_publish()
        commit.publish(context.run, staged, self.ranks.world_size, spec.train.zero_stage, files, context.fence)
        step = int(staged.name.removeprefix("step-"))
        held_s, took_s = round(self._held_s, 3), round(time.monotonic() - self._began_s, 3)
        context.journal.write("saved", step=step, held_s=held_s, took_s=took_s)
        commit.prune(context.run, spec.train.checkpoint.keep_last, context.fence)

    def _tell(self, text: str) -> None:
        if self.ranks.leader:
            self.context.say(text)


class Found(NamedTuple):
    """A checkpoint that is whole on every rank."""

    folder: Path
    complete: Complete


def find_checkpoint(context: StageContext, ranks: Ranks) -> Found | None:
    """The newest checkpoint whose files match their checksums; None if there is none.

    A damaged one is passed over, and the log says so. All ranks call it; each checks its share of the files.
    """
    if ranks.leader:
        commit.clear_staging(context.run)
        for folder in commit.torn(context.run):
            context.say(
                f"checkpoint {folder.name} is not whole: {commit.COMPLETE} is missing or damaged; passing over it"
            )
    listed = ranks.from_leader(lambda: [(str(folder), found) for folder, found in commit.published(context.run)])
    for name, complete in listed:
        mine = sorted(complete.files)[ranks.rank :: ranks.world_size]
        bad = commit.damaged(Path(name), complete, mine)
        if ranks.all_agree(not bad):
            return Found(Path(name), complete)
        if ranks.leader:
            commit.distrust(Path(name))
        told = [f"checkpoint {Path(name).name} is damaged ({', '.join(bad)})"] if bad else []
        context.say("; ".join([*told, "falling back to the checkpoint before"]))
    return None


def load_checkpoint(engine: Any, context: StageContext, ranks: Ranks, found: Found | None, heartbeat: Heartbeat) -> int:
    """Load what `find_checkpoint` found and return its step; 0 if there was none.

    On the number of ranks that wrote it every bit comes back. On another number the states are converted, and the
    random numbers of dropout start anew from the seed and the step. Weights that do not learn stay as they are: they
    came from the folder of the model. StageError on all ranks if another model is there now.
    """
    if found is None:
        return 0
    folder, complete = found
    if frozen_names(engine.module) and not ranks.from_leader(lambda: _same_base(context, folder)):
        raise StageError(
            f"{folder.name} holds adapters to another model than is now in {context.spec.model.path}",
            "put the model back that was there, or start a new run",
        )
    if complete.world_size != ranks.world_size:
        universal.load(engine, context, ranks, folder, complete, heartbeat.beat)
        seed_anew(hash((context.spec.seed, complete.step, ranks.rank, ranks.world_size)) % 2**63)
        return complete.step
    universal.load_states(engine, folder)
    own = torch.load(folder / _rank_file(ranks.rank), weights_only=True)
    restore_random_states(own["random"])
    return own["step"]


def _same_base(context: StageContext, folder: Path) -> bool:
    """Is the model, whose weights are not in the checkpoint, still the one with which it was written?"""
    return torch.load(folder / _rank_file(0), weights_only=True)["base"] == fingerprint(context.spec.model.path)


def _rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.pt"


def _attempt(act: Callable[[], Any], expected: type[Exception] | tuple[type[Exception], ...] = OSError) -> str | None:
    """Do it; None, or what was against it. What is not `expected` is raised."""
    try:
        act()
    except expected as error:
        return str(error)
    return None
