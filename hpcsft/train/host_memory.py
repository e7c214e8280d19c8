"""Host memory for snapshots: mapped and touched once, used again by every save; and how much of it there is."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from pathlib import Path

import torch

ALIGNMENT_BYTES = 64
LARGEST_SHARE = 0.8
"""Of the memory that is available, what a snapshot may take; the rest is for what training still allocates."""


BACKGROUND_NICE = 10
"""A tenth of the weight of training where they share a core: at 19 a write hardly gets on where no core is idle."""


def lower_priority() -> None:
    """Put the calling thread behind training: on Linux each thread has a nice value of its own."""
    os.nice(BACKGROUND_NICE)


class HostMemory:
    """Buffers that outlive a save, in as few mappings as possible. Page-locked where CUDA is available."""

    def __init__(self) -> None:
        self._mappings: list[_Mapping] = []
        self._touching: threading.Thread | None = None
        self._device = torch.cuda.current_device() if torch.cuda.is_available() else None

    def reserve(self, num_bytes: int) -> None:
        """Map `num_bytes` and touch them in the background, so that the first save finds them ready."""
        mapping = _Mapping(num_bytes)
        self._mappings.append(mapping)
        self._touching = threading.Thread(target=mapping.touch, args=(self._device,), name="touch-host-memory")
        self._touching.start()

    def release_all(self) -> None:
        """Everything that was taken may be taken again; its contents are lost."""
        for mapping in self._mappings:
            mapping.used_bytes = 0

    def take(self, sizes: list[int]) -> list[torch.Tensor]:
        """One uint8 tensor per size in bytes, each a storage of its own; mapped anew only if no mapping has the room.

        Raises OSError when the system refuses the memory.
        """
        if self._touching:
            self._touching.join()
            self._touching = None
        total = room_for(sizes)
        mapping = next((mapping for mapping in self._mappings if mapping.free_bytes >= total), None)
        if mapping is None:
            mapping = _Mapping(total)
            mapping.pin(self._device)
            self._mappings.append(mapping)
        return [mapping.cut(size) for size in sizes]


class _Mapping:
    """Anonymous memory of which tensors are cut from the front to the back."""

    def __init__(self, num_bytes: int) -> None:
        self._memory = mmap.mmap(-1, max(num_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._address = torch.frombuffer(self._memory, dtype=torch.uint8).data_ptr()
        self.used_bytes = 0

    @property
    def free_bytes(self) -> int:
        return len(self._memory) - self.used_bytes

    def touch(self, device: int | None) -> None:
        """In a thread of its own, which must be told the rank's GPU."""
        lower_priority()
        ctypes.memset(self._address, 0, len(self._memory))  # releases the GIL
        self.pin(device)

    def pin(self, device: int | None) -> None:
        """Page-lock it. A refusal costs speed only: the copies wait for one another then."""
        if device is not None:
            torch.cuda.set_device(device)
            torch.cuda.cudart().cudaHostRegister(self._address, len(self._memory), 0)

    def cut(self, num_bytes: int) -> torch.Tensor:
        if num_bytes == 0:
            return torch.empty(0, dtype=torch.uint8)
        piece = torch.frombuffer(self._memory, dtype=torch.uint8, count=num_bytes, offset=self.used_bytes)
        self.used_bytes += room_for([num_bytes])
        return piece


def room_for(sizes: list[int]) -> int:
    """Bytes that buffers of these sizes take together."""
    return sum(-(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for size in sizes)


def fits(num_bytes: int) -> bool:
    """Can this host spare `num_bytes` for snapshots? Ask for all ranks of the host together."""
    return num_bytes <= LARGEST_SHARE * available_bytes()


def available_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that can still be had: the kernel's MemAvailable, or less if a control group (v1, v2) allows less."""
    meminfo = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    room = [int(meminfo["MemAvailable"].split()[0]) * 1024]
    for line in (proc / "self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots, limit, usage, cache = [cgroups, cgroups / "unified"], "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            roots, limit, usage = [cgroups / "memory"], "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        for root in roots:
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):  # a limit of an ancestor, such as a job's, binds as well
                if folder.is_relative_to(root):
                    room += _group_room(folder, limit, usage, cache)
    return max(0, min(room))


def _group_room(folder: Path, limit: str, usage: str, cache: str) -> list[int]:
    """What one control group leaves, counting its file cache as free; empty without a limit."""
    try:
        most = (folder / limit).read_text().strip()
        if most == "max":
            return []
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return [int(most) - int((folder / usage).read_text()) + int(stat[cache])]
    except OSError:
        return []  # the group has no such controller, or lies outside this container's view
