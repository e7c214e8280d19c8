"""What one rank finds on its node before training begins: device, shared run directory, temporary files, clock."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import tempfile
import time
from pathlib import Path

import torch

from hpcsft.records import Record
from hpcsft.stage import StageContext

MATRIX = 256
"""Rows and columns of the product by which a device shows that it computes."""
TEMPORARY_BYTES = 2**20
"""So much must fit into the folder for temporary files."""
WRONG_BUILD = ("no kernel image is available", "not compiled with", "invalid device function")
"""What torch and CUDA say where a build of torch has nothing for this kind of device."""
CLOCK_SLACK_S = 1.0
"""Filesystems round the times of files, some to whole seconds."""


class NodeReport(Record):
    """What one rank has found."""

    rank: int
    node: str
    """As Slurm calls it; outside of Slurm, the name of the host."""
    problems: list[str] = []
    """What makes the node unfit."""
    environment: str | None = None
    """What the user's own environment lacks, on whatever node."""
    disk_full: str | None = None
    """The shared filesystem has no room: nobody but the user can mend that, and it is not the node's fault."""
    server_ahead_s: float | None = None
    """By how much the clock of the file server is ahead of the node's; None where no file was written."""


def node_name() -> str:
    """This node as Slurm calls it; outside of Slurm, the name of the host."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def look_at_node(context: StageContext, device: torch.device) -> NodeReport:
    """Look at what this rank needs. The files are looked at by one rank of each node. Never raises."""
    device_says, temporary, disk_full, server_ahead_s = device_problem(device), None, None, None
    problems = []
    if context.task.local_rank == 0:
        try:
            server_ahead_s = write_and_read(context.run.heartbeat / f".check-{context.task.token}-{context.task.rank}")
        except OSError as error:
            reason = f"{context.run.path} cannot be used: {error.strerror or error}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                disk_full = reason
            else:
                problems.append(reason)
        temporary = temporary_problem()
    own = {device_says: is_of_the_build(device_says or ""), temporary: "TMPDIR" in context.spec.cluster.env}
    return NodeReport(
        rank=context.task.rank,
        node=node_name(),
        problems=[*problems, *(text for text, ours in own.items() if text and not ours)],
        environment=next((text for text, ours in own.items() if text and ours), None),
        disk_full=disk_full,
        server_ahead_s=server_ahead_s,
    )


def device_problem(device: torch.device) -> str | None:
    """What is wrong with the device of this rank; None if a product of matrices comes out right."""
    numbers = torch.arange(MATRIX * MATRIX).reshape(MATRIX, MATRIX) % 7  # small: exact in every format
    right = numbers @ numbers.T
    try:
        computed = (numbers.float().to(device) @ numbers.T.float().to(device)).cpu()
    except (RuntimeError, AssertionError) as error:  # AssertionError: of a torch without CUDA
        return f"{device} does not compute: {str(error).strip().splitlines()[0]}"
    return None if torch.equal(computed, right.float()) else f"{device} computes wrong numbers"


def is_of_the_build(problem: str) -> bool:
    """Does the device not compute because of the torch that was installed, which every node has?"""
    return any(sign in problem for sign in WRONG_BUILD)


def write_and_read(path: Path) -> float:
    """Write a small file, read it back and remove it. Returns by how much the file server's clock is ahead, in seconds.

    OSError if that does not work.
    """
    content = secrets.token_bytes(64)
    before_s = time.time()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, content)
        os.fsync(fd)
        written_s = os.fstat(fd).st_mtime
    finally:
        os.close(fd)
    after_s = time.time()
    found = path.read_bytes()
    path.unlink()
    if found != content:
        raise OSError(errno.EIO, f"{path} does not hold what was written to it")
    nearest_s = min(max(written_s, before_s - CLOCK_SLACK_S), after_s + CLOCK_SLACK_S)
    return written_s - nearest_s


def temporary_problem() -> str | None:
    """What is wrong with the folder for temporary files; None if a file can be written there.

    A TMPDIR that is not there is that of another machine: programs then use /tmp.
    """
    own = os.environ.get("TMPDIR")
    folder = own if own and os.path.isdir(own) else "/tmp"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(TEMPORARY_BYTES))
            file.flush()
    except OSError as error:
        return f"{folder} takes no temporary files: {error.strerror or error}"
    return None
