"""What can befall the cluster: preemption, nodes that fail or seem to, a controller that is out."""

from __future__ import annotations

import signal
import time

from tests.chaos.faults import Fault, kill_rank
from tests.chaos.live import LiveRun
from tests.chaos.processes import ranks, send, stepds
from tests.chaos.watch import NO_SLURM

ZOMBIE_S = 90.0
"""A fenced attempt must have ended by then."""


class Preempt(Fault):
    """A job of higher priority takes all nodes; variant GRACE or GRACE+usr2: with Slurm's user signals on."""

    kind = "preempt"
    needs_notice = True

    def prepare(self, live: LiveRun) -> None:
        grace, _, user_signal = self.variant.partition("+")
        extra = {"SlurmctldParameters": "preempt_send_user_signal"} if user_signal else {}
        live.cluster.reconfigure(extra, grace_s=int(grace))

    def inject(self, live: LiveRun) -> None:
        live.cluster.wait_job(live.urgent_job(), "COMPLETED", 90)


class NodeDown(Fault):
    """A node of the job is set down by hand, and drained, so that it does not come back by its next sign of life."""

    kind = "node_down"

    def inject(self, live: LiveRun) -> None:
        job, restart = live.attempt()
        self._node = live.rng.choice(live.ranks()).node
        for state in ("DOWN", "DRAIN"):
            live.cluster.run("scontrol", "update", f"NodeName={self._node}", f"State={state}", "Reason=chaos")
        live.wait_for("the job to leave the node", lambda: int(live.cluster.job(job)["Restarts"]) > restart)

    def repair(self, live: LiveRun) -> None:
        live.cluster.run("scontrol", "update", f"NodeName={self._node}", "State=RESUME", check=False)


class Zombie(Fault):
    """The slurmd of a node freezes; Slurm gives the node up and starts the job again while the old ranks live on.

    down: the node is set down by hand, at once; stepd: its slurmstepd freezes, too; timeout: Slurm finds it out itself.
    """

    kind = "zombie"
    steps = 250

    def __post_init__(self) -> None:
        self.steps = 900 if self.variant == "timeout" else 250
        self.outlived_s = 0.0
        """How long old ranks lived after the new attempt had started."""

    def inject(self, live: LiveRun) -> None:
        job, restart = live.attempt()
        self._node = live.rng.choice(live.ranks()).node
        self._stepds = stepds(live.cluster, job, self._node) if self.variant == "stepd" else []
        live.given_up.add(self._node)
        live.cluster.freeze(self._node)
        for pid in self._stepds:
            send(pid, signal.SIGSTOP)
        if self.variant != "timeout":
            live.cluster.run("scontrol", "update", f"NodeName={self._node}", "State=DOWN", "Reason=chaos")
        live.wait_for("the next attempt", lambda: live.attempt() != (job, restart))
        started_s = time.monotonic()
        old = ranks(live.cluster, job, restart)
        while old and time.monotonic() < started_s + ZOMBIE_S:
            self.outlived_s = time.monotonic() - started_s
            time.sleep(0.2)
            old = ranks(live.cluster, job, restart)
        if old:
            live.complain(f"{len(old)} ranks of attempt {job}_{restart} live {ZOMBIE_S:g} s after they were fenced off")

    def repair(self, live: LiveRun) -> None:
        for pid in self._stepds:
            send(pid, signal.SIGCONT)
        live.cluster.thaw(self._node)
        live.given_up.discard(self._node)


class Controller(Fault):
    """slurmctld is out for 10 to 20 s.

    freeze or restart: SIGSTOP and SIGCONT, or a clean stop and a new start; +kill: a rank dies meanwhile;
    +preempt: a preemption has begun right before.
    """

    kind = "controller"
    steps = 20

    def __post_init__(self) -> None:
        self.needs_notice = self.variant.endswith("preempt")

    def inject(self, live: LiveRun) -> None:
        how, what = self.variant.split("+")
        urgent = live.urgent_job() if what == "preempt" else None
        time.sleep(live.rng.uniform(0, 1))
        with live.watch.allowing(NO_SLURM):
            (live.cluster.freeze if how == "freeze" else live.cluster.stop)("slurmctld")
            if what == "kill":
                kill_rank(live)
            time.sleep(live.rng.uniform(10, 20))
            (live.cluster.thaw if how == "freeze" else live.cluster.start)("slurmctld")
            live.cluster.wait_for("the controller", lambda: _answers(live), 60)
        if urgent:
            live.wait_urgent(urgent)


def _answers(live: LiveRun) -> bool:
    return live.cluster.run("scontrol", "ping", check=False).stdout.count(" UP") > 0
