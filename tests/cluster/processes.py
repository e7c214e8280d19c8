"""Which processes belong to one MiniSlurm, and how to end all of them.

Pid files are not enough: slurmstepd forks itself away from slurmd, job processes leave their session, and
a pid in a file may by now be somebody else's. What cannot be confused is the environment that a process was
started with. Each daemon, each slurmstepd and each job process carries SLURM_CONF with the path of this very
cluster; so does the shell of a developer who exported it, which must live: hence the second condition in
`belongs`.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

DAEMONS = frozenset({"munged", "slurmctld", "slurmd", "slurmstepd"})
PROC = Path("/proc")


def belongs(name: str, environ: bytes, conf: Path) -> bool:
    """Is this a daemon of the cluster configured by `conf`, or a process of one of its jobs?"""
    variables = environ.split(b"\0")
    if b"SLURM_CONF=" + os.fsencode(conf) not in variables:
        return False
    in_job = any(variable.startswith(b"SLURMD_NODENAME=") for variable in variables)
    return in_job or name in DAEMONS


def owned(conf: Path) -> dict[int, str]:
    """Pid -> name of every living process of the cluster, with what its processes have started."""
    names: dict[int, str] = {}
    parents: dict[int, int] = {}
    mine: set[int] = set()
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):  # ended meanwhile, or not ours to read
            head, _, tail = (folder / "stat").read_text(errors="replace").rpartition(")")
            pid, name = int(folder.name), head.partition("(")[2]
            state, parent = tail.split()[:2]
            if state == "Z":
                continue
            names[pid], parents[pid] = name, int(parent)
            if belongs(name, (folder / "environ").read_bytes(), conf):
                mine.add(pid)
    while children := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= children
    return {pid: names[pid] for pid in mine - {os.getpid()}}


def end_all(conf: Path, timeout_s: float = 10.0) -> None:
    """SIGKILL until none is left to see: a daemon may fork between the look and the signal."""
    deadline = time.monotonic() + timeout_s
    while processes := owned(conf):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes of {conf} survive SIGKILL: {processes}")
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
