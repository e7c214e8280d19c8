"""The run under chaos as faults see it: where it is, how to wait for it, and what its cluster does."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from hpcsft.rundir import RunDir
from tests.chaos.follow import Follower
from tests.chaos.processes import Rank, nodes_of, ranks
from tests.chaos.scene import Scene
from tests.chaos.watch import MonitorWatch
from tests.cluster.minislurm import MiniSlurm

T = TypeVar("T")
WHOLE_CLUSTER = ("--nodes=4", "--ntasks-per-node=1", "--cpus-per-task=4", "--partition=high")
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")
LOOK_S = 1.0
SETTLED_S = 2.0
"""A job that starts in the second in which it was requeued dies: its credential counts as revoked."""
PATIENCE_S = 300.0
CLIENT_TIMEOUT_S = 5.0
"""Patience with Slurm's clients while the controller may be out."""


class ChaosError(RuntimeError):
    """The run cannot go on, or did not do what it had to in time."""


class LiveRun:
    """A submitted run, followed and watched until `close`."""

    def __init__(self, scene: Scene, run: RunDir, rng: random.Random):
        self.scene = scene
        self.run = run
        self.rng = rng
        self.cluster: MiniSlurm = scene.cluster
        self.follower = Follower(run)
        self.watch = MonitorWatch(run)
        self.problems: list[str] = []
        self.given_up: set[str] = set()
        """Nodes that Slurm believes dead: it will start nothing there."""
        self.judged = 0
        """How many of the follower's resumptions the harness has looked at."""
        self._looked_s = 0.0
        self._pending_s: dict[str, float] = {}

    def close(self) -> None:
        """Stop following and watching."""
        self.follower.close()
        self.watch.close()

    def complain(self, text: str) -> None:
        """Note that a promise was broken."""
        self.problems.append(f"{time.strftime('%H:%M:%S')} {text}")

    def wait_for(self, what: str, condition: Callable[[], T], timeout_s: float = PATIENCE_S, poll_s: float = 0.1) -> T:
        """Poll until `condition` is true, and let requeued jobs go at once. ChaosError when it takes too long."""
        deadline = time.monotonic() + timeout_s
        while not (result := condition()):
            if time.monotonic() > deadline:
                raise ChaosError(f"waited {timeout_s:g} s for {what}\n{self._queue()}")
            if self.watch.gives_up():
                raise ChaosError(f"while waiting for {what}: {self.watch.problems[-1]}")
            self.nudge()
            time.sleep(poll_s)
        return result

    def wait_steps(self, count: int) -> None:
        """Wait until the newest attempt is `count` steps beyond what was ever done before."""
        goal = self.follower.highest + count

        def arrived() -> bool:
            if self.follower.done:
                raise ChaosError("the run came to its end before all faults had been injected: it needs more steps")
            return bool(self.follower.step_time) and self.follower.step >= goal

        self.wait_for(f"step {goal}", arrived, poll_s=0.02)

    def mend_nodes(self) -> bool:
        """Resume nodes that were set down or drained; returns whether all are up, as before the last fault."""
        lines = self.cluster.run("sinfo", "-hN", "-p", "low", "-o", "%N %T", check=False).stdout.splitlines()
        states = dict(line.split() for line in lines)
        for node, state in states.items():
            if state.startswith(("down", "drain")):  # refused while a job completes: the next look
                self.cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
        return len(states) == 4 and set(states.values()) <= {"idle", "mixed", "allocated"}

    def attempt(self) -> tuple[str, int]:
        """Job id and restart count of the attempt that started last."""
        row = self.follower.events("start")[-1]
        return row["job_id"], row["restart"]

    def ranks(self) -> list[Rank]:
        """The living ranks of the newest attempt."""
        return ranks(self.cluster, *self.attempt())

    def alive_jobs(self) -> dict[str, tuple[str, str]]:
        """Job id -> state and reason of this run's jobs that Slurm holds; SlurmError when it does not answer."""
        lines = self.cluster.run("squeue", "-h", "-t", "all", "-o", "%F|%T|%r|%k", timeout_s=CLIENT_TIMEOUT_S).stdout
        rows = (line.strip().split("|", 3) for line in lines.splitlines())
        mine = f"hpcsft:{self.run.path.name}:"
        return {
            job: (state, reason) for job, state, reason, note in rows if note.startswith(mine) and state not in OVER
        }

    def nudge(self) -> None:
        """Make requeued jobs eligible now instead of when their old credentials have expired; looks once a second.

        Not before their old processes have ended: Slurm drains a node that still has them and holds the job.
        """
        if time.monotonic() - self._looked_s < LOOK_S:
            return
        with suppress(RuntimeError, subprocess.TimeoutExpired):  # no answer, or gone meanwhile: the next time
            jobs = self.alive_jobs()
            waiting = [job for job, (state, reason) in jobs.items() if (state, reason) == ("PENDING", "BeginTime")]
            now_s = time.monotonic()
            free = [job for job in waiting if nodes_of(self.cluster, job) <= self.given_up]
            self._pending_s = {job: self._pending_s.get(job, now_s) for job in free}
            for job in free:
                if now_s - self._pending_s[job] >= SETTLED_S:
                    update = ("scontrol", "update", f"JobId={job}", "StartTime=now")
                    self.cluster.run(*update, timeout_s=CLIENT_TIMEOUT_S)
        self._looked_s = time.monotonic()

    def urgent_job(self) -> str:
        """Submit a job of higher priority that takes every node for a moment."""
        return self.cluster.submit("true", *WHOLE_CLUSTER)

    def wait_urgent(self, job_id: str) -> None:
        """Wait for the end of an urgent job, which must find all nodes up."""

        def ended() -> bool:
            self.mend_nodes()  # Slurm drains nodes whose jobs end too slowly, and they do while the controller is out
            return self.cluster.job(job_id)["JobState"] == "COMPLETED"

        self.wait_for("the end of the urgent job", ended, poll_s=0.3)

    def _queue(self) -> str:
        with suppress(RuntimeError, subprocess.TimeoutExpired):
            return self.cluster.overview()
        return "(Slurm does not answer)\n"
