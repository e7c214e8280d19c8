"""The processes of one attempt, found by the environment that Slurm gave them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.cluster.minislurm import MiniSlurm
from tests.cluster.processes import owned


class Rank(NamedTuple):
    """One task of a job's step: the process that slurmstepd started."""

    pid: int
    rank: int
    node: str


def nodes_of(cluster: MiniSlurm, job_id: str) -> set[str]:
    """Names of the nodes on which any process of a job lives, slurmstepd and batch script included.

    A slurmstepd outlives its tasks by a second or two. As long as its socket is there, slurmd takes the job that
    starts again for a second copy, and Slurm drains the node.
    """
    found = {socket.parent.name for socket in cluster.run_folder.glob(f"n*/n*_{job_id}.*")}
    for pid in owned(cluster.conf):
        with suppress(OSError, KeyError):
            env = _environment(pid)
            if env["SLURM_JOB_ID"] == job_id:
                found.add(env["SLURMD_NODENAME"])
    return found


def ranks(cluster: MiniSlurm, job_id: str, restart: int | None = None) -> list[Rank]:
    """The living ranks of a job's attempt (None: of all its attempts), in the order of their ranks."""
    names = owned(cluster.conf)
    found = []
    for pid, name in names.items():
        with suppress(OSError, KeyError, IndexError):
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            env = _environment(pid)
            mine = env["SLURM_JOB_ID"] == job_id and restart in (None, int(env.get("SLURM_RESTART_COUNT", "0")))
            # The batch script, too, is a child of a slurmstepd, but has no number of a step.
            if mine and name != "slurmstepd" and "SLURM_STEP_ID" in env and names.get(int(stat[1])) == "slurmstepd":
                found.append(Rank(pid, int(env["SLURM_PROCID"]), env["SLURMD_NODENAME"]))
    return sorted(found, key=lambda rank: rank.rank)


def stepds(cluster: MiniSlurm, job_id: str, node: str) -> list[int]:
    """The slurmstepd processes of a job on one node."""
    found = set()
    names = owned(cluster.conf)
    for pid in names:
        with suppress(OSError, KeyError, IndexError):
            env = _environment(pid)
            if env["SLURM_JOB_ID"] == job_id and env["SLURMD_NODENAME"] == node:
                parent = int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
                if names.get(parent) == "slurmstepd":
                    found.add(parent)
    return sorted(found)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
