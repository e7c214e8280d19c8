"""Task files of lm-evaluation-harness, read without it: which tasks there are, and what groups and tags stand for.

A YAML file with the key `task` is a task, one with `group` stands for several, and `tag` joins a task to what the tag
names. A file may `include` others, whose settings it overrides. Folders come in the order in which they win.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcsft.errors import InputError

IGNORED_FOLDERS = {"__pycache__", ".ipynb_checkpoints"}
MAX_INCLUDES = 8
"""Files that include each other end somewhere."""

FILE_FORMATS = {"arrow", "csv", "json", "pandas", "parquet", "text", "xml"}
"""What `dataset_path` names when the rows are in files."""


@dataclass(frozen=True)
class TaskSettings:
    """One task or group, as its files describe it."""

    name: str
    folder: Path
    """The folder of task files in which it was found."""
    values: dict[str, Any]
    is_group: bool = False


@dataclass(frozen=True)
class _Entry:
    folder: Path
    values: dict[str, Any] | None
    """Of a task or a group; None for a tag."""
    members: list[Any]
    """Of a group or a tag: names, or objects with a name and settings over those of that name."""


class TaskFiles:
    """All task files below some folders. They are read at once, and looked into only as far as a name needs it."""

    def __init__(self, folders: Sequence[Path]):
        self.folders = folders

    def tasks(self, name: str) -> list[TaskSettings]:
        """The tasks that `name` stands for.

        KeyError with the name that is not there, this or one in a group. InputError for a file that cannot be read.
        """
        return [found for found in self._tasks(name, {}, ()) if not found.is_group]

    def described(self, name: str) -> list[TaskSettings]:
        """The tasks and the groups that `name` stands for, itself and those in it. Raises as `tasks`."""
        return list(self._tasks(name, {}, ()))

    def nearest(self, name: str) -> list[str]:
        """Up to three names that look like `name`."""
        keys = re.compile(rb"(?m)^[\"']?(?:task|group)[\"']?[ \t]*:[ \t]*[\"']?([A-Za-z0-9][^\s\"'#,]*)")
        texts = (text for folder in self.folders for text in _texts(folder).values())
        known = {found.decode(errors="replace") for text in texts for found in keys.findall(text)}
        return difflib.get_close_matches(name, sorted(known), n=3)

    def _tasks(self, name: str, over: dict[str, Any], way: tuple[str, ...]) -> Iterator[TaskSettings]:
        entry = self._find(name)
        if entry is None or name in way:
            raise KeyError(name)
        if entry.values is not None:
            yield TaskSettings(name, entry.folder, {**entry.values, **over}, is_group=bool(entry.members))
        for member in entry.members:
            yield from self._member(member, entry.folder, over, (*way, name))

    def _member(self, member: Any, folder: Path, over: dict[str, Any], way: tuple[str, ...]) -> Iterator[TaskSettings]:
        own = member if isinstance(member, dict) else {"task": member}
        name = own.get("group") or own.get("task")
        if isinstance(name, str) and self._find(name):
            settings = {key: value for key, value in own.items() if key not in ("task", "group")}
            yield from self._tasks(name, {**over, **settings}, way)
        elif isinstance(own.get("task"), list):  # a group that is described where it is named
            for inner in own["task"]:
                yield from self._member(inner, folder, over, way)
        elif len(own) > 1:  # a task that is described where it is named
            yield TaskSettings(str(name), folder, {**over, **own})
        else:
            raise KeyError(str(name))

    @functools.cache  # noqa: B019 (lives as long as one check)
    def _find(self, name: str) -> _Entry | None:
        return next(filter(None, (_look(folder, name) for folder in self.folders)), None)


def data_patterns(task: TaskSettings, include_path: str | None) -> list[str]:
    """Paths, perhaps with wildcards, of the files on this disk that hold the rows of `task`; none for the hub's."""
    options = task.values.get("dataset_kwargs")
    if task.values.get("dataset_path") not in FILE_FORMATS or not isinstance(options, dict):
        return []
    folder = os.path.join(include_path or "", options.get("data_dir") or "")
    return [os.path.join(folder, name) for name in _flat(options.get("data_files")) if "://" not in name]


def _flat(value: Any) -> list[str]:
    """The names in `data_files`: one, a list of them, or either by split."""
    if isinstance(value, dict):
        value = list(value.values())
    return [name for part in value for name in _flat(part)] if isinstance(value, list) else [value] if value else []


def _look(folder: Path, name: str) -> _Entry | None:
    """What `name` is in one folder. A task or group counts before a tag, and the first file before later ones."""
    key, text = rb"[\"']?(?:task|group|tag)[\"']?\s*:", re.escape(name.encode())
    stands = re.compile(rb"(?m)^(?:%b|\s*-)\s*[\"']?%b[\"']?\s*(?:#.*)?$|^%b.*%b" % (key, text, key, text))
    tagged: list[str] = []
    for path, content in _texts(folder).items():
        if name.encode() not in content or not stands.search(content):
            continue
        values = read_task_file(path)
        if name in (values.get("group"), values.get("task")):
            listed = values.get("task") if "group" in values and "class" not in values else None
            return _Entry(folder, values, listed if isinstance(listed, list) else [])
        tags = values.get("tag")
        if isinstance(values.get("task"), str) and name in (tags if isinstance(tags, list) else [tags]):
            tagged.append(values["task"])
    return _Entry(folder, None, sorted(tagged)) if tagged else None


@functools.lru_cache(maxsize=4)
def _texts(folder: Path) -> dict[Path, bytes]:
    """All task files of a folder, each with those that it includes after it. The package has 14000, 7 MB together."""
    paths = (path for path in folder.rglob("*.yaml") if not IGNORED_FOLDERS.intersection(path.parts))
    return {path: _text(path, 0) for path in sorted(paths, key=str)}


@functools.lru_cache(maxsize=100_000)
def _text(path: Path, depth: int) -> bytes:
    try:
        text = path.read_bytes()
    except OSError:
        return b""  # whoever needs it will say so
    included = re.search(rb"(?m)^[\"']?include[\"']?[ \t]*:(.*(?:\n[ \t]*-.*)*)", text)
    if included is None or depth == MAX_INCLUDES:
        return text
    names = re.findall(r"[^\s\[\],\"']+", included[1].decode(errors="replace"))
    return b"\n".join([text, *(_text(path.parent / name, depth + 1) for name in names if name != "-")])


def read_task_file(path: Path, including: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings in a task file and in those that it includes; a function is only its name.

    InputError if they cannot be read.
    """
    import yaml

    if path in including:
        raise InputError(f"benchmark: {path}: includes itself", "remove the line `include`")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"benchmark: {path}: cannot be read as a task file: {reason}") from None
    if not isinstance(values, dict):
        raise InputError(f"benchmark: {path}: no task file", "a task file is a YAML mapping with the key `task`")
    included = values.pop("include", None) or []
    merged: dict[str, Any] = {}
    for name in included if isinstance(included, list) else [included]:
        merged |= read_task_file(path.parent / str(name), (*including, path))
    return {**merged, **values}


@functools.cache
def _loader() -> Any:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Safe, and knows the harness's tag for functions."""

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    return Loader
