"""What can befall the processes, the files and the run itself.

A fault does its harm in `inject` and puts right in `repair` what would not mend by itself. Both return when their part
is over; what the run makes of it is the harness's to judge.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.live import ChaosError, LiveRun
from tests.chaos.processes import send
from tests.chaos.scene import command
from tests.chaos.watch import CANCELLED

FULL_S = 15.0
"""How long a disk stays full at most."""
RESURRECTION_S = 10.0
"""How long a cancelled run is looked at."""


@dataclass
class Fault:
    """One thing that goes wrong."""

    variant: str = ""
    kind = ""
    ends_attempt = True
    """Must a new attempt come of it?"""
    needs_notice = False
    """Are the ranks told beforehand, so that no step may be lost?"""
    falls_back = 0
    """Intervals that may be lost in addition, because the newest checkpoint is gone."""
    steps = 0
    """Steps that the run may do while the fault lasts."""
    whole_step: int | None = None
    """Step of the newest checkpoint that the fault left whole; None: it damaged none."""
    acted_s = 0.0
    """When the harm was done, on the clock of time.time()."""

    @property
    def name(self) -> str:
        """kind:variant."""
        return f"{self.kind}:{self.variant}" if self.variant else self.kind

    def prepare(self, live: LiveRun) -> None:
        """Wait for the moment, or set the cluster up."""

    def inject(self, live: LiveRun) -> None:
        """Do the harm."""
        raise NotImplementedError

    def repair(self, live: LiveRun) -> None:
        """Put right what would stay."""


class Kill(Fault):
    """SIGKILL of a random rank; `save`: while a checkpoint is being written."""

    kind = "kill"
    steps = 20

    def prepare(self, live: LiveRun) -> None:
        if self.variant == "save":
            live.wait_for("a save", live.follower.saving, poll_s=0.003)

    def inject(self, live: LiveRun) -> None:
        kill_rank(live)


class Corrupt(Fault):
    """A rank is killed, and the newest checkpoint damaged: flip a bit, truncate or delete a file."""

    kind = "corrupt"
    falls_back = 1

    def inject(self, live: LiveRun) -> None:
        attempt = live.attempt()
        kill_rank(live)
        live.wait_for("the end of all ranks", lambda: not live.ranks() or live.attempt() != attempt)
        published = live.follower.published_steps()
        self.whole_step = published[1] if len(published) > 1 else 0
        if not published:
            return
        folder = live.run.step_folder(published[0])
        file = live.rng.choice(sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size))
        damage(file, self.variant, live.rng)
        if live.attempt() != attempt:
            live.complain("harness: the next attempt was quicker than the damage")


class DiskFull(Fault):
    """The run's filesystem is full while a periodic save is due; small files still find room."""

    kind = "disk_full"
    ends_attempt = False
    steps = 60
    room_bytes = 512 * 1024

    def prepare(self, live: LiveRun) -> None:
        every = live.scene.every_steps
        live.wait_for(
            "the steps before a save",
            lambda: live.follower.step % every >= every - 5 and not live.follower.saving(),
            poll_s=0.02,
        )

    def inject(self, live: LiveRun) -> None:
        self._filler = live.run.path.parent / "filler"
        fill(self._filler, self.room_bytes)
        due, deadline_s = live.follower.step + live.scene.every_steps, time.monotonic() + FULL_S
        attempt = live.attempt()
        # Steps that find no room for their own line are told later: hence the deadline.
        live.wait_for(
            "steps on a full disk",
            lambda: live.follower.step >= due or time.monotonic() > deadline_s or live.attempt() != attempt,
        )
        if live.attempt() != attempt:
            live.complain("the attempt ended because a periodic save found the disk full")

    def repair(self, live: LiveRun) -> None:
        self._filler.unlink(missing_ok=True)
        saved = len(live.follower.events("saved"))
        live.wait_for("a checkpoint after the disk was freed", lambda: len(live.follower.events("saved")) > saved)


class Cancel(Fault):
    """launch/cancel.py while it runs, is pending, or saves; nothing may come back; then launch/resume.py."""

    kind = "cancel"

    def prepare(self, live: LiveRun) -> None:
        if self.variant == "saving":
            live.wait_for("a save", live.follower.saving, poll_s=0.003)
        if self.variant == "pending":
            live.cluster.wait_job(live.urgent_job(), "COMPLETED", 90)
            live.cluster.wait_for("a pending job", lambda: _states(live) <= {"PENDING"}, 60)

    def inject(self, live: LiveRun) -> None:
        with live.watch.allowing(CANCELLED):
            command("cancel.py", live.run.path, "--yes", cwd=live.scene.root)
            live.wait_for("the end of all jobs", lambda: not live.alive_jobs(), 60)
            deadline_s = time.monotonic() + RESURRECTION_S
            while time.monotonic() < deadline_s:
                if came_back := live.alive_jobs():
                    live.complain(f"a cancelled run came back: {came_back}")
                    break
                time.sleep(0.5)
            if (code := live.watch.ask()) != CANCELLED:
                live.complain(f"a cancelled run is not called cancelled: exit code {code}")
            command("resume.py", live.run.path, cwd=live.scene.root)
        self.acted_s = time.time()


def _states(live: LiveRun) -> set[str]:
    return {state for state, _ in live.alive_jobs().values()}


def kill_rank(live: LiveRun) -> None:
    """SIGKILL one of the newest attempt's ranks."""
    found = live.ranks()
    if not found:
        raise ChaosError(f"attempt {live.attempt()} has no living rank to kill")
    send(live.rng.choice(found).pid, signal.SIGKILL)


def damage(file: Path, how: str, rng: random.Random) -> None:
    """flip: one random bit; truncate: to a random shorter length; delete."""
    size = file.stat().st_size
    if how == "delete":
        file.unlink()
    elif how == "truncate":
        with open(file, "rb+") as opened:
            opened.truncate(rng.randrange(size))
    else:
        with open(file, "rb+") as opened:
            offset = rng.randrange(size)
            opened.seek(offset)
            byte = opened.read(1)[0]
            opened.seek(offset)
            opened.write(bytes([byte ^ 1 << rng.randrange(8)]))


def fill(file: Path, room_bytes: int) -> None:
    """Let `file` take all space of its filesystem but `room_bytes`."""
    free = shutil.disk_usage(file.parent).free
    if free > room_bytes:
        subprocess.run(["fallocate", "--length", str(free - room_bytes), str(file)], check=True)
