"""What the configuration files of a MiniSlurm say, and why; and the ports it takes."""

import fcntl
import os
import random
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

NODES = ("n1", "n2", "n3", "n4")
CPUS, GPUS, MEMORY_MB = 4, 4, 64_000  # per node; claimed, not owned: config_overrides makes slurmd believe it
PORTS = range(10_000, 20_000)  # below the ephemeral ports, and apart from 20000-31999, where training meets
PROGRAMS = ("munged", "slurmctld", "slurmd", "scontrol", "sinfo", "squeue", "sbatch", "srun", "scancel")
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])

MARKER = "# Written by MiniSlurm, which may empty this folder."
# slurmd drops GPUs without a device file, and tells a job which ones it got (CUDA_VISIBLE_DEVICES) only if
# the files are real devices. These four exist in every container, and nothing keeps a job from them.
GRES_CONF = "AutoDetect=off\nName=gpu File=/dev/null,/dev/zero,/dev/full,/dev/random\n"
# slurmd loads a cgroup plugin even if nothing uses cgroups. The one for v2 wants systemd, which containers
# lack; the one for v1 touches nothing until somebody asks it to.
CGROUP_CONF = "CgroupPlugin=cgroup/v1\n"


def unavailable() -> str | None:
    """Why no MiniSlurm can run here, with the way out; None if it can."""
    if missing := [program for program in PROGRAMS if not shutil.which(program, path=PATH)]:
        return f"NO SLURM HERE: {', '.join(missing)} not found; as root: python -m tests.cluster.install"
    if os.geteuid() != 0:
        return "NO SLURM HERE: slurmd starts jobs only as root; run these tests as root"
    return None


def slurm_conf(run: Path, logs: Path, ports: Sequence[int], grace_s: int, extra: Mapping[str, str]) -> str:
    """The text of slurm.conf; `ports`: the controller's, then one per node; `extra` adds or replaces keys."""
    for path in (run, logs):
        if not re.fullmatch(r"[\w./+-]+", str(path)):
            raise ValueError(f"slurm.conf cannot hold the path {str(path)!r}: use letters, digits, . _ + -")
    settings = {
        "ClusterName": "minislurm",
        # Addresses are spelled out because the name of the machine need not resolve.
        "SlurmctldHost": "localhost(127.0.0.1)",
        "SlurmctldPort": str(ports[0]),
        "SlurmUser": "root",
        # A requeued job is not eligible until its old credential has expired: by default 121 s; 4 is refused.
        "AuthInfo": f"socket={run}/munge.sock,cred_expire=6",
        "StateSaveLocation": f"{run}/state",
        "SlurmdSpoolDir": f"{run}/%n",
        "SlurmctldPidFile": f"{run}/slurmctld.pid",
        "SlurmdPidFile": f"{run}/%n.pid",
        "SlurmctldLogFile": f"{logs}/slurmctld.log",
        "SlurmdLogFile": f"{logs}/%n.log",
        # No cgroups, no hardware: four nodes share a machine smaller than each of them claims to be.
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SlurmdParameters": "config_overrides",
        "MpiDefault": "none",
        "GresTypes": "gpu",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "DefMemPerCPU": str(MEMORY_MB // CPUS),
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "JobRequeue": "1",
        # Tests wait for these: the kill after a signal, the loss of a node, its return, a look at the queue.
        "KillWait": "5",
        "SlurmdTimeout": "20",
        "ReturnToService": "2",
        "SchedulerParameters": "batch_sched_delay=0,sched_interval=1,bf_interval=1",
    }
    node = f"NodeHostname=localhost NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:{GPUS}"
    return "\n".join(
        [MARKER]
        + [f"{key}={value}" for key, value in (settings | dict(extra)).items()]
        + [f"NodeName={name} Port={port} {node}" for name, port in zip(NODES, ports[1:], strict=True)]
        + [f"PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace_s}"]
        + ["PartitionName=high Nodes=ALL PriorityTier=10", ""]
    )


def write_settings(
    root: Path, run: Path, logs: Path, ports: Sequence[int], grace_s: int, extra: Mapping[str, str]
) -> None:
    """Write the three configuration files to `root`, and a new key for munged to `run`."""
    (root / "slurm.conf").write_text(slurm_conf(run, logs, ports, grace_s, extra))
    (root / "gres.conf").write_text(GRES_CONF)
    (root / "cgroup.conf").write_text(CGROUP_CONF)
    (run / "munge.key").touch(mode=0o600)
    (run / "munge.key").write_bytes(secrets.token_bytes(128))


def is_free(port: int) -> bool:
    """Could a daemon bind this port now?"""
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


@contextmanager
def reserved_ports() -> Iterator[list[int]]:
    """Free ports for the controller and the nodes; inside the block no other MiniSlurm here chooses any.

    The caller leaves the block when its daemons listen: from then on the ports themselves are the sign.
    The lock is on slurmctld's own program, a file that all clusters share and nobody has to clean up.
    """
    count = 1 + len(NODES)
    with open(str(shutil.which("slurmctld", path=PATH)), "rb") as program:
        fcntl.flock(program, fcntl.LOCK_EX)
        firsts = random.sample(PORTS[: -count + 1], 200)
        blocks = ([*range(first, first + count)] for first in firsts)
        ports = next((block for block in blocks if all(map(is_free, block))), None)
        if ports is None:
            raise OSError(f"no {count} neighbouring free ports in {PORTS}")
        yield ports
