"""provenance.json: who has submitted what from where, with which code and versions."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcsft.owner import ThisCluster, this_user
from hpcsft.provenance.code import code_state
from hpcsft.provenance.software import installed, packages, python
from hpcsft.records import now


def collect_provenance(argv: Sequence[str], root: Path, cluster: ThisCluster | None = None) -> dict[str, Any]:
    """All of provenance.json, for a submission by the command `argv` with the code in `root`.

    The command holds the overrides that were given; the spec that they led to is spec.json. Of the environment not one
    variable is written down.
    """
    everything = installed()
    return {
        "time": now(),
        "host": socket.gethostname(),
        "user": this_user(),
        "cluster": {"name": cluster.name, "slurm_version": cluster.version} if cluster else None,
        "command": list(argv),
        "folder": os.getcwd(),
        "python": python(),
        "packages": packages(everything),
        "platform": platform.platform(),
        **code_state(root),
        "installed": everything,
    }
