"""Can a run be written where the spec says, and is there room for it?"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpcsft.disk_use import size_text
from hpcsft.estimate.disk import disk_document
from hpcsft.inputs import InputFacts
from hpcsft.plan import Plan
from hpcsft.preflight.finding import Finding
from hpcsft.preflight.storage.filesystems import Mount, mount_of
from hpcsft.preflight.storage.quota import Quota, quotas_on, tightest_bytes
from hpcsft.records import fsync_folder
from hpcsft.spec import ExperimentSpec
from hpcsft.storage import storage_error

SLOW_S = 2.0
"""A small file that takes longer to be written stands for a filesystem that is in trouble."""
PROBE_BYTES = 65_536
BYTES_PER_TOKEN = 4
"""Of text, roughly: how many tokens the data will be is only known afterwards."""
FILES_OF_A_RUN = 2000
"""Code, logs, statuses and reports, generously."""
FILES_OF_A_RANK = 4
"""In each checkpoint and export, generously."""
FEWEST_FILES = 500
"""With fewer a run does not even begin."""
HOME_BYTES = 500_000_000
"""What caches of compiled kernels may take."""


def storage_findings(spec: ExperimentSpec, plan: Plan, facts: InputFacts, mounts: Sequence[Mount]) -> Iterator[Finding]:
    """Of runs_dir and of the home directory. Writes a small file to both, and removes it."""
    folder = existing_folder(Path(spec.runs_dir).absolute())
    trouble = list(_writing("runs_dir", folder, Path(spec.runs_dir)))
    yield from trouble
    if not any(finding.level == "error" for finding in trouble):
        mount = mount_of(os.path.realpath(folder), mounts)
        quotas = quotas_on(mount) if mount else []
        if facts.model.num_parameters:
            tokens = facts.data_bytes // BYTES_PER_TOKEN
            disk = disk_document(spec, facts.model.num_parameters, tokens, None, facts.model.shape)
            yield from room_findings(disk, tightest_bytes(quotas))
        yield from file_findings(spec, plan, _free_files(folder), quotas)
    yield from _home(mounts)


def existing_folder(path: Path) -> Path:
    """`path`, or the nearest of its parents that exists."""
    return next((place for place in (path, *path.parents) if os.path.lexists(place)), Path("/"))


def _writing(where: str, folder: Path, wanted: Path) -> Iterator[Finding]:
    """Is the nearest existing folder one, and can it be written in reasonable time?"""
    if not folder.is_dir():
        message = f"{folder}: a link that leads nowhere" if folder.is_symlink() else f"{folder}: a file, not a folder"
        yield Finding(level="error", where=where, message=message, hint="name a folder, which need not exist yet")
        return
    try:
        took_s = probe(folder)
    except OSError as error:
        doing = "no run can be written" if folder == wanted.absolute() else f"{wanted} cannot be made"
        told = storage_error(_about(folder, error), doing)
        yield Finding(level="error", where=where, message=told.message, hint=told.hint)
        return
    if took_s > SLOW_S:
        message = (
            f"{folder}: writing a small file took {took_s:.1f} s: the filesystem is slow now, "
            "and checkpoints and logs will be too"
        )
        hint = "try again when it is quick, or set runs_dir to another filesystem"
        yield Finding(level="warning", where=where, message=message, hint=hint)


def _about(folder: Path, error: OSError) -> OSError:
    """The same error about the folder, and not about a file that nobody knows."""
    return OSError(error.errno, error.strerror, str(folder))


def probe(folder: Path) -> float:
    """Write, flush, rename and remove a small file; returns the seconds that it took. OSError if it fails."""
    began = time.monotonic()
    fd, name = tempfile.mkstemp(prefix=".hpcsft-probe-", dir=folder)
    final = f"{name}.whole"
    try:
        with open(fd, "wb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, final)
        fsync_folder(folder)
        os.unlink(final)
        return time.monotonic() - began
    finally:
        for left in (name, final):
            with contextlib.suppress(OSError):
                os.unlink(left)


def room_findings(disk: dict[str, Any], quota_bytes: int | None) -> Iterator[Finding]:
    """The room against all that a run writes: less than one checkpoint and one export are an error. Pure."""
    needed, least = disk["total_bytes"], disk["checkpoint_bytes"] + disk["export_bytes"] * bool(disk["exports"])
    rooms = {"is free on its filesystem": disk["free_bytes"], "is left of your quota": quota_bytes}
    for words, room in rooms.items():
        if room is None or needed <= room:
            continue
        message = (
            f"{disk['folder']}: {size_text(room)} {words}, and the run writes up to {size_text(needed)}: "
            f"{disk['checkpoints']} checkpoints of {size_text(disk['checkpoint_bytes'])}, "
            f"{disk['exports']} exports of {size_text(disk['export_bytes'])}, {size_text(disk['shards_bytes'])} of data"
        )
        hint = "`hpcsft clean` removes old checkpoints; or lower train.checkpoint.keep_last, or set runs_dir elsewhere"
        level = "error" if room < least else "warning"
        yield Finding(level=level, where="runs_dir", message=message, hint=hint, forcible=level == "error")


def _free_files(folder: Path) -> int | None:
    """Files that may still be made on a filesystem; None where it does not count them."""
    found = os.statvfs(folder)
    return found.f_favail or None if found.f_files else None  # 0, and one was just made: it does not count them


def file_findings(spec: ExperimentSpec, plan: Plan, free: int | None, quotas: Sequence[Quota]) -> Iterator[Finding]:
    """The number of files that may be made, against those of a run. Pure."""
    copies = spec.train.checkpoint.keep_last + 1 + spec.train.epochs
    needed = FILES_OF_A_RUN + FILES_OF_A_RANK * plan.stage("train").world_size * copies
    left = [quota.left_files for quota in quotas if quota.left_files is not None]
    for words, room in {"are left on its filesystem": free, "are left of your quota": min(left, default=None)}.items():
        if room is not None and room < needed:
            message = f"{spec.runs_dir}: {room:,} files {words}, and a run makes up to {needed:,}"
            hint = "remove files that nobody needs (`df -i` and `quota` count them), or set runs_dir elsewhere"
            level = "error" if room < FEWEST_FILES else "warning"
            yield Finding(level=level, where="runs_dir", message=message, hint=hint, forcible=level == "error")


def _home(mounts: Sequence[Mount]) -> Iterator[Finding]:
    """Caches of torch and triton go to the home directory; a job whose home is full may end over that."""
    hint = "make room there, or name another folder for caches: cluster.env.XDG_CACHE_HOME and TRITON_CACHE_DIR"
    home = Path(os.path.expanduser("~"))
    try:
        probe(home)
        free = os.statvfs(home)
    except OSError as error:
        told = storage_error(_about(home, error), "caches of torch and triton cannot be written")
        yield Finding(level="warning", where="$HOME", message=told.message, hint=hint)
        return
    mount = mount_of(os.path.realpath(home), mounts)
    quota = tightest_bytes(quotas_on(mount)) if mount else None
    room = min(free.f_bavail * free.f_frsize, *([quota] if quota is not None else []), 10**18)
    if room < HOME_BYTES:
        message = f"{home}: only {size_text(room)} are left there, and caches of torch and triton go there"
        yield Finding(level="warning", where="$HOME", message=message, hint=hint)
