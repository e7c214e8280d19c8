"""On which filesystems the files of a run are, and whether compute nodes see them. Pure but for reading the mounts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from hpcsft.preflight.finding import Finding

MOUNTS = Path("/proc/self/mounts")

IN_MEMORY = frozenset(("tmpfs", "ramfs", "devtmpfs", "overlay", "aufs", "squashfs", "iso9660", "fuse-overlayfs"))
"""Filesystems that no other machine sees."""
ON_DISK = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "vfat", "ntfs"))
"""Filesystems of a disk in this machine, which may still be exported to others."""
SYSTEM = "/usr"
"""The prefix of the Python of the operating system, which every node has from its own image."""
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run")
"""Folders of each machine's own, unless a filesystem of a network is mounted there."""


class Mount(NamedTuple):
    """A line of /proc/self/mounts."""

    source: str
    """A device, or server:/path."""
    folder: str
    kind: str
    """Such as nfs4, lustre, ext4."""
    read_only: bool = False


def read_mounts() -> list[Mount]:
    """What is mounted here; empty where nobody tells."""
    try:
        return parse_mounts(MOUNTS.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return []


def parse_mounts(text: str) -> list[Mount]:
    """/proc/self/mounts: blanks in names are written \\040."""
    found = []
    for line in text.splitlines():
        fields = [re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field) for field in line.split(" ")]
        if len(fields) >= 4:
            found.append(Mount(*fields[:3], read_only="ro" in fields[3].split(",")))
    return found


def mount_of(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """The mount that an absolute path without links is on: the longest, and of equal ones the last."""
    found = None
    for mount in mounts:
        if path == mount.folder or path.startswith(mount.folder.rstrip("/") + "/"):
            found = mount if found is None or len(mount.folder) >= len(found.folder) else found
    return found


def locality(path: str, mounts: Sequence[Mount]) -> Literal["own", "disk", "shared"]:
    """own: surely of this machine alone; disk: most likely so; shared: a network's, or not known."""
    mount = mount_of(path, mounts)
    kind = mount.kind if mount else ""
    if kind in IN_MEMORY:
        return "own"
    if kind not in ON_DISK:
        return "shared"
    return "own" if any(path == folder or path.startswith(f"{folder}/") for folder in TEMPORARY) else "disk"


def sharing_findings(paths: Mapping[str, Sequence[str]], mounts: Sequence[Mount]) -> Iterator[Finding]:
    """What of `paths` (field of the spec -> absolute paths) other machines do not see, one finding for a filesystem."""
    places: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for field, named in paths.items():
        for path in named:
            real = os.path.realpath(path)
            where = locality(real, mounts)
            mount = mount_of(real, mounts)
            if where != "shared" and mount and real != SYSTEM:
                found = places.setdefault((where, mount.folder, mount.kind), [])
                if field not in [known for known, _ in found]:
                    found.append((field, path))
    for (where, folder, kind), found in places.items():
        example = found[0][1] if len(found) == 1 else f"{found[0][1]} and others"
        hint = (
            "compute nodes see filesystems of the network only: home, project or scratch; `df -T` tells which they are"
        )
        fields = ", ".join(field for field, _ in found)
        if where == "own":
            message = f"{example}: on this machine alone ({kind} at {folder}), where jobs on other nodes cannot see it"
            yield Finding(level="error", where=fields, message=message, hint=hint, forcible=True)
        else:
            message = f"{example}: on a disk of this machine ({kind} at {folder}), which compute nodes may not see"
            yield Finding(level="warning", where=fields, message=message, hint=hint)
