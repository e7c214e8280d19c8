"""What a task of the spec is measured with, as one digest: correct a question, and its old figures count no more."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from hpcsft.benchmark.task_files import TaskFiles, TaskSettings, data_patterns
from hpcsft.digest import sha256_of


def task_digest(name: str, files: TaskFiles, include_path: str | None) -> str:
    """sha256 over the settings of all tasks and groups that `name` stands for, their rows that are in files, and the
    Python files of `include_path`, any of which a task of that folder may call.

    What comes with lm-evaluation-harness is known by its version, rows of the hub by their name.
    KeyError and InputError as `TaskFiles.tasks`.
    """
    digest = hashlib.sha256()
    described = files.described(name)
    for one in described:
        digest.update(f"{one.name}\0{one.values!r}\0".encode("utf-8", "surrogatepass"))
    read = {path for one in described for path in _data_files(one, include_path)}
    if include_path and any(one.folder == Path(include_path) for one in described):
        read.update(str(path) for path in Path(include_path).rglob("*.py"))
    for path in sorted(filter(os.path.isfile, read)):
        digest.update(f"{path}\0{sha256_of(path)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _data_files(task: TaskSettings, include_path: str | None) -> Iterator[str]:
    for pattern in data_patterns(task, include_path):
        yield from glob.iglob(pattern, recursive=True)
    options = task.values.get("dataset_kwargs")
    data_dir = options.get("data_dir") if isinstance(options, dict) and not options.get("data_files") else None
    for name in (task.values.get("dataset_path"), data_dir):
        if name and os.path.isdir(folder := os.path.join(include_path or "", str(name))):
            yield from glob.iglob(os.path.join(glob.escape(folder), "**"), recursive=True)
