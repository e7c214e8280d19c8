"""How much of a quota is left, where `quota` or `lfs quota` tells it."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from collections.abc import Sequence

from hpcsft.preflight.storage.filesystems import Mount
from hpcsft.records import Record

TIMEOUT_S = 2
KIB = 1024


class Quota(Record):
    """One line of a quota tool: what is used and what is allowed; None where there is no limit."""

    filesystem: str
    """A device, server:/path, or the folder where it is mounted."""
    used_bytes: int
    limit_bytes: int | None
    used_files: int | None = None
    limit_files: int | None = None

    @property
    def left_bytes(self) -> int | None:
        """What may still be written."""
        return None if self.limit_bytes is None else max(0, self.limit_bytes - self.used_bytes)

    @property
    def left_files(self) -> int | None:
        """How many files may still be made."""
        if self.limit_files is None or self.used_files is None:
            return None
        return max(0, self.limit_files - self.used_files)


def parse_quotas(text: str) -> list[Quota]:
    """What `quota -w` and `lfs quota` print: FILESYSTEM, then used, quota, limit and grace of blocks of 1024 bytes and
    of files. A long name stands on a line of its own; grace may be missing; a * marks what is over; what is in brackets
    is a guess of lfs. What is of another form is passed over.
    """
    words = [line.split() for line in text.splitlines()]
    rows: list[list[str]] = []
    for line in words:
        if rows and len(rows[-1]) == 1 and line and _number(line[0]) is not None:
            rows[-1] += line
        elif line:
            rows.append(line)
    return [found for row in rows if (found := _row(row))]


def _row(words: list[str]) -> Quota | None:
    blocks = [_number(word) for word in words[1:4]]
    if len(blocks) < 3 or None in blocks:
        return None
    rest = words[4:]
    if rest and _number(rest[0]) is None:  # grace
        rest = rest[1:]
    files = [_number(word) for word in rest[:3]]
    used, soft, hard = (number or 0 for number in blocks)
    counted = files if len(files) == 3 and None not in files else None
    return Quota(
        filesystem=words[0],
        used_bytes=used * KIB,
        limit_bytes=(hard or soft) * KIB or None,
        used_files=counted[0] if counted else None,
        limit_files=(counted[2] or counted[1] or None) if counted else None,
    )


def _number(word: str) -> int | None:
    found = re.fullmatch(r"\[?(\d+)\]?\*?", word)
    return int(found[1]) if found else None


def quotas_on(mount: Mount) -> list[Quota]:
    """The user's quotas on a filesystem; empty where no tool tells them, or not in TIMEOUT_S."""
    if mount.kind == "lustre":
        texts = [_ask("lfs", "quota", "-u", getpass.getuser(), mount.folder)]
    else:
        texts = [_ask("quota", "-w")]
    return [quota for text in texts for quota in parse_quotas(text) if is_of(quota, mount)]


def is_of(quota: Quota, mount: Mount) -> bool:
    """Is it the quota of this filesystem?"""
    return quota.filesystem in (mount.source, mount.folder)


def tightest_bytes(quotas: Sequence[Quota]) -> int | None:
    """What may still be written; None without a limit."""
    return min((left for quota in quotas if (left := quota.left_bytes) is not None), default=None)


def _ask(*command: str) -> str:
    """What a tool prints, whatever it returns: `quota` returns 1 to who is over a limit. Empty without it."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, errors="replace").stdout
    except (OSError, subprocess.SubprocessError):
        return ""
