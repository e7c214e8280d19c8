"""Which code it is: the commit and what differs from it, and a digest that needs no git."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FOLDERS = ("hpcsft", "jobs", "launch")
"""What is copied into a run directory, and all that runs."""
GIT_TIMEOUT_S = 10


def code_state(root: Path) -> dict[str, Any]:
    """commit, diff and untracked files of FOLDERS under `root`, None without git; version and digest in any case."""
    return {"version": package_version(), **git_state(root), "code_digest": code_digest(code_files(root))}


def package_version() -> str | None:
    """The version of hpcsft as it was installed; None for a checkout that was never installed."""
    try:
        return importlib.metadata.version("hpcsft")
    except importlib.metadata.PackageNotFoundError:
        return None


def git_state(root: Path) -> dict[str, Any]:
    """commit, diff (against the commit) and untracked (files that no diff shows); all None if git knows nothing of it.

    A copy of the code in a run directory that lies in somebody's checkout is none of that checkout's.
    """
    questions = (
        ("rev-parse", "HEAD"),
        ("ls-files", "--", "hpcsft/__init__.py"),
        ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD", "--", *FOLDERS),
        ("ls-files", "--others", "--exclude-standard", "--", *FOLDERS),
    )
    with ThreadPoolExecutor(len(questions)) as pool:
        commit, tracked, diff, others = pool.map(lambda question: _git(root, *question), questions)
    if not commit or not tracked:
        return {"commit": None, "diff": None, "untracked": None}
    return {"commit": commit.strip(), "diff": diff, "untracked": (others or "").splitlines()}


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=GIT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def code_files(root: Path) -> dict[str, str]:
    """sha256 of every file of FOLDERS under `root`, by its path from there; caches and hidden files are no code."""
    found = {}
    for top in FOLDERS:
        for folder, names, files in os.walk(root / top):
            names[:] = sorted(name for name in names if name != "__pycache__" and name[0] != ".")
            for name in files:
                if not name.endswith(".pyc") and name[0] != ".":
                    file = Path(folder, name)
                    found[file.relative_to(root).as_posix()] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def code_digest(files: dict[str, str]) -> str:
    """One digest of what `code_files` has found."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
