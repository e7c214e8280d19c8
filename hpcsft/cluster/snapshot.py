"""What a run remembers of where it came from: a copy of the code, versions, the commit and its diff."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from hpcsft.errors import HpcsftError
from hpcsft.records import now

PACKAGES = (
    "torch",
    "transformers",
    "deepspeed",
    "datasets",
    "submitit",
    "pydantic",
    "rich",
    "pyarrow",
    "numpy",
)


def source_root() -> Path:
    """The folder that holds hpcsft/ and jobs/."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "jobs").is_dir():
        hint = "install hpcsft from its checkout: pip install -e ."
        raise HpcsftError(f"no jobs/ beside hpcsft/ in {root}", hint)
    return root


def copy_code(destination: Path) -> None:
    """Copy hpcsft/ and jobs/: editing the checkout while a job waits in the queue changes nothing."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    for folder in ("hpcsft", "jobs"):
        shutil.copytree(source_root() / folder, destination / folder, ignore=ignore, dirs_exist_ok=True)


def collect_provenance(argv: list[str]) -> dict[str, Any]:
    """Commit, diff, versions and host. No environment variable, so no secret."""
    return {
        "time": now(),
        "host": socket.gethostname(),
        "command": argv,
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "user": os.environ.get("USER", ""),
        **_git(source_root()),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(root: Path) -> dict[str, str | None]:
    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return {"commit": commit.strip() if commit else None, "diff": git("diff", "HEAD") if commit else None}
