"""The files, folders and hub names behind `data.train` and `data.validation`, and whether they have changed."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpcsft.data.hub import open_hub
from hpcsft.data.streams import unreadable
from hpcsft.errors import InputError
from hpcsft.hub.names import DataName, is_hub_name

LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
ARRAYS = (".json", ".json.gz", ".json.zst")
PARQUET = ".parquet"
ENDINGS = (*LINES, *ARRAYS, PARQUET)

_ABOUT = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""What `datasets` writes beside the data."""


def find_files(patterns: Sequence[str], where: str) -> list[str]:
    """What paths, globs, folders and hub names stand for, each once, each pattern's matches sorted.

    A folder stands for all files with a known ending inside, however deep and each once whatever links there are, or
    for itself if `datasets` saved it. `where` is the spec's field, for errors: InputError if something is missing,
    unknown or unreadable, or its name is not UTF-8.
    """
    files: dict[str, str] = {}  # by where their links lead, so that no file is read twice
    for pattern in patterns:
        if is_hub_name(pattern):
            try:
                DataName.parse(pattern)
            except InputError as error:
                raise InputError(f"{where}: {error.message}", error.hint) from None
            files[pattern] = pattern
            continue
        matches = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise InputError(f"{where}: no such file: {pattern}", "paths are relative to where submit is called")
        for match in matches:
            for file in _in_folder(match, where) if os.path.isdir(match) else [match]:
                files.setdefault(os.path.realpath(file), file)
    for file in files.values():
        _check(file, where)
    return list(files.values())


def is_saved(folder: str) -> bool:
    """Did `datasets` save a data set in `folder`?"""
    return all(os.path.isfile(os.path.join(folder, name)) for name in ("dataset_info.json", "state.json"))


def saved_files(folder: str) -> list[str]:
    """The files of a data set that `datasets` saved. InputError if one of them is not there."""
    state = read_about(folder, "state.json")
    try:
        names = [str(item["filename"]) for item in state["_data_files"]]
    except (LookupError, TypeError):
        raise InputError(f"{folder}/state.json: no list of files inside", "save the data set again") from None
    files = [os.path.join(folder, name) for name in names]
    for file in files:
        if not os.path.isfile(file):
            raise InputError(f"{folder}: {os.path.basename(file)} is missing", "copy the folder again, as a whole")
    return [*files, os.path.join(folder, "state.json"), os.path.join(folder, "dataset_info.json")]


def read_about(folder: str, name: str) -> Any:
    """What one of the small files of a saved data set says; InputError if it cannot be read."""
    file = os.path.join(folder, name)
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(file, error) from None


def state_of(file: str) -> str:
    """Digest of sizes and times of the file, or of those in a saved folder: it changes when they do.

    A data set of the hub has a fingerprint of its own. InputError if there is nothing to be read.
    """
    if is_hub_name(file):
        return open_hub(file)._fingerprint
    try:
        stats = [os.stat(part) for part in (saved_files(file) if os.path.isdir(file) else [file])]
    except OSError as error:
        raise unreadable(file, error) from None
    facts = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


class _Found(NamedTuple):
    """Data in a folder. What is no link to a file comes first in order."""

    is_link: bool
    path: str
    real: str
    """The same for all paths that lead to it."""


def _in_folder(folder: str, where: str) -> list[str]:
    once: dict[str, str] = {}
    for found in sorted(_walk(folder, where)):
        once.setdefault(found.real, found.path)
    if not once:
        known = ", ".join(ENDINGS)
        raise InputError(f"{where}: {folder}: no data inside", f"known endings: {known}; or what save_to_disk wrote")
    return sorted(once.values())


def _walk(folder: str, where: str) -> Iterator[_Found]:
    """Everything in `folder`, each real folder once, those that links lead to last: `latest -> v2` adds nothing."""
    seen = set()
    waiting = deque([folder])
    while waiting:
        folder = waiting.popleft()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        if is_saved(folder):
            yield _Found(False, folder, real)
        elif os.path.isfile(os.path.join(folder, "dataset_dict.json")):
            train = _split_of(folder, where)
            yield _Found(False, train, os.path.realpath(train))
        else:
            for entry, is_folder in _entries(folder, where):
                is_link = entry.is_symlink()
                if is_folder:
                    (waiting.append if is_link else waiting.appendleft)(entry.path)
                elif entry.name.endswith(ENDINGS):
                    target = os.path.realpath(entry.path) if is_link else os.path.join(real, entry.name)
                    yield _Found(is_link, entry.path, target)


def _entries(folder: str, where: str) -> list[tuple[os.DirEntry[str], bool]]:
    """What in `folder` may be data, and whether it is a folder; InputError if that cannot be told."""
    try:
        with os.scandir(folder) as entries:
            wanted = (entry for entry in entries if entry.name[0] != "." and entry.name not in _ABOUT)
            return [(entry, entry.is_dir()) for entry in sorted(wanted, key=lambda entry: entry.name)]
    except OSError as error:
        problem = unreadable(error.filename or folder, error)
        raise InputError(f"{where}: {problem.message}", problem.hint) from None


def _split_of(folder: str, where: str) -> str:
    """The subfolder of the split `train`, which is what `data.train` means."""
    train = os.path.join(folder, "train")
    if where == "data.train" and is_saved(train):
        return train
    splits = sorted(entry.name for entry, is_folder in _entries(folder, where) if is_folder and is_saved(entry.path))
    message = f"{where}: {folder}: there are several splits: {', '.join(splits) or '(none)'}"
    raise InputError(message, f"name the subfolder of one: {os.path.join(folder, (splits or ['SPLIT'])[0])}")


def _check(file: str, where: str) -> None:
    try:
        file.encode("utf-8")
    except UnicodeEncodeError:
        hint = "rename it: names of files and folders have to be text"
        raise InputError(f"{where}: {file!r}: the name is not UTF-8", hint) from None
    if is_hub_name(file) or os.path.isdir(file):
        return
    if not file.endswith(ENDINGS):
        raise InputError(f"{where}: {file}: unknown kind of file", f"known endings: {', '.join(ENDINGS)}")
    if not os.path.isfile(file) or not os.access(file, os.R_OK):
        raise InputError(f"{where}: {file}: cannot be read", "is it a file, and may you read it?")
