"""What a run writes, against the room that there is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hpcsft.estimate.memory import GB
from hpcsft.estimate.states import element_bytes, model_states, trainable_parameters
from hpcsft.model_shape import ModelShape
from hpcsft.spec import ExperimentSpec

TOKEN_BYTES = 8
"""A token of a shard: its id and its label."""


def disk_document(
    spec: ExperimentSpec,
    num_parameters: int,
    tokens: int | None,
    quota_gb: float | None = None,
    shape: ModelShape | None = None,
) -> dict[str, Any]:
    """Bytes of a whole run by kind, and the room: of the filesystem, and `quota_gb` if the user told it.

    `tokens` are those of all rows; None if that is not known.
    """
    checkpoint = model_states(spec, 1, num_parameters, shape).checkpoint_bytes
    kept = spec.train.checkpoint.keep_last + 1  # and the one that is being written
    alone = spec.model.lora is not None and spec.model.lora.export == "adapter"
    export = (trainable_parameters(spec, num_parameters, shape) if alone else num_parameters) * element_bytes(spec)
    parts = {
        "checkpoints_bytes": kept * checkpoint,
        "exports_bytes": spec.train.epochs * export,
        "shards_bytes": (tokens or 0) * TOKEN_BYTES,
    }
    total = sum(parts.values())
    free = free_bytes(spec.runs_dir)
    quota = round(quota_gb * GB) if quota_gb is not None else None
    rooms = [room for room in (free, quota) if room is not None]
    return {
        "checkpoint_bytes": checkpoint,
        "checkpoints": kept,
        "export_bytes": export,
        "exports": spec.train.epochs,
        **parts,
        "total_bytes": total,
        "folder": os.path.abspath(spec.runs_dir),
        "free_bytes": free,
        "quota_bytes": quota,
        "fits": total <= min(rooms) if rooms else None,
    }


def free_bytes(folder: str) -> int | None:
    """Free bytes, for users, of the filesystem in which `folder` is or will be; None if nobody can tell.

    It knows nothing of quotas.
    """
    path = Path(folder).absolute()
    for place in (path, *path.parents):
        try:
            found = os.statvfs(place)
        except OSError:
            continue
        return found.f_bavail * found.f_frsize if found.f_blocks else None  # some network filesystems do not tell
    return None


def disk_warnings(disk: dict[str, Any]) -> list[str]:
    """One line if the run does not fit."""
    if disk["fits"] is not False:
        return []
    rooms = {"on its filesystem": disk["free_bytes"], "in your quota": disk["quota_bytes"]}
    needed = disk["total_bytes"]
    short = [f"{room / GB:,.1f} GB {words}" for words, room in rooms.items() if room is not None and room < needed]
    return [
        f"{disk['folder']}: the run writes up to {needed / GB:,.1f} GB, and there is room for "
        f"{' and '.join(short)}; lower train.checkpoint.keep_last, or set runs_dir elsewhere"
    ]
