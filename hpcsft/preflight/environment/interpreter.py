"""Is what the stages are to run in there: the Python of a venv or conda environment, a container's image and mounts?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from hpcsft.preflight.finding import Finding
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.environment import ContainerSpec


def interpreter_findings(spec: ExperimentSpec, kind: str) -> Iterator[Finding]:
    """What is missing, seen from the login node; `kind` is slurm or local."""
    for field in ("venv", "conda"):
        if prefix := getattr(spec.cluster, field):
            python = f"{prefix}/bin/python"
            if not os.access(python, os.X_OK):
                state = "cannot be executed" if os.path.exists(python) else "is not there"
                hint = f"the folder of the environment is wanted, with bin/python in it; given {prefix}"
                yield _missing(f"cluster.{field}", f"{python} {state}", hint)
    if container := spec.cluster.container:
        yield from _container(container, kind)


def _container(container: ContainerSpec, kind: str) -> Iterator[Finding]:
    if kind == "local":
        message = "the local cluster runs the stages as they are, without a container"
        hint = "leave it out, and start hpcsft itself in the container"
        yield Finding(level="error", where="cluster.container", message=message, hint=hint)
        return
    if container.image_is_file and not os.access(container.image, os.R_OK):
        state = "cannot be read" if os.path.exists(container.image) else "is not there"
        hint = "a file that the runtime's pull or build has made, on a filesystem that all nodes share"
        yield _missing("cluster.container.image", f"{container.image} {state}", hint)
    for mount in container.mounts:
        if not os.path.exists(source := mount.partition(":")[0]):
            yield _missing("cluster.container.mounts", f"{source} is not there", "leave it out, or make it")
    if container.runtime != "pyxis" and not shutil.which(container.runtime):
        message = f"there is no {container.runtime} on this node; compute nodes may have it, or a module bring it"
        hint = "if it comes with a module, name that in cluster.modules"
        yield Finding(level="note", where="cluster.container.runtime", message=message, hint=hint)


def _missing(where: str, what: str, hint: str) -> Finding:
    """Compute nodes may have what this node has not: so the user may overrule it."""
    return Finding(level="error", where=where, message=f"{what}, at least on this node", hint=hint, forcible=True)
