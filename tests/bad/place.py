"""A folder with a spec that is about to go wrong, and what a command then says."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.launch.command import launch

VARYING = {
    r"/\S*/pytest-[^/\s]*/pytest-\d+/": "TMP/",
    re.escape(sys.prefix): "VENV",
    r"torch \d\S*": "torch VERSION",
    r"tiny-[0-9a-f]{8}": "tiny-HASH",
    rf"\b{re.escape(socket.gethostname())}\b": "HOST",
    r"\b(pid|process) \d+": r"\1 N",
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d\S*)?": "TIME",
}
"""What differs from machine to machine and from run to run -> what is kept in its place."""


class Place:
    """A spec and its inputs in a folder of their own, where a case may spoil anything."""

    def __init__(self, folder: Path, values: dict[str, Any], path: Path | None = None):
        self.folder = folder
        self.values = values
        self.path = path
        """The only folder in which programs are looked for; None for those of this machine."""
        self.raw: str | bytes | None = None
        """The spec's file, where it is no JSON of `values`."""

    def set(self, field: str, value: Any) -> None:
        """Change a field of the spec, such as train.epochs."""
        *parents, last = field.split(".")
        node = self.values
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value

    def drop(self, field: str) -> None:
        """Leave a field out."""
        *parents, last = field.split(".")
        node = self.values
        for part in parents:
            node = node[part]
        del node[last]

    def file(self, name: str, content: str | bytes) -> str:
        """Write a file and return its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def data(self, name: str, content: str | bytes) -> None:
        """Train on this file."""
        self.set("data.train", [self.file(name, content)])

    def prompts(self, content: Any) -> None:
        """Ask these prompts."""
        self.set(
            "evaluate.prompts", self.file("prompts.json", content if isinstance(content, str) else json.dumps(content))
        )

    def model(self) -> Path:
        """A copy of the model that may be spoilt."""
        copy = self.folder / "model"
        shutil.copytree(self.values["model"]["path"], copy)
        self.set("model.path", str(copy))
        return copy

    def config(self, **keys: Any) -> None:
        """Change the configuration of a copy of the model; None removes a key."""
        file = self.model() / "config.json"
        config = {**json.loads(file.read_text()), **keys}
        file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    def write_spec(self) -> None:
        """Write the file that submit is given."""
        content = json.dumps(self.values) if self.raw is None else self.raw
        (self.folder / "spec.json").write_bytes(content.encode() if isinstance(content, str) else content)

    def files(self) -> dict[str, str]:
        """Every file below the folder, with a digest of what is in it."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if path.is_symlink() or not path.is_file():
                found[name] = "link" if path.is_symlink() else "folder"
            else:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def told(self, *arguments: str) -> str:
        """What the command writes to stderr and its exit code, with what differs between machines replaced."""
        script, *rest = arguments
        done = launch(f"{script}.py", *rest, cwd=self.folder, path=self.path)
        text = done.stderr.replace(str(self.folder), "HERE").replace(str(self.folder.parent), "ABOVE")
        for pattern, word in VARYING.items():
            text = re.sub(pattern, word, text)
        return f"{text}exit {done.returncode}\n"


class Case(NamedTuple):
    """One thing that is wrong."""

    title: str
    spoil: Callable[[Place], Any]
    """Spoils the place; what it returns may be the command line, else it is that of a submission."""


SUBMIT = ("submit", "spec.json")


def sets(field: str, value: Any) -> Callable[[Place], None]:
    """A field of the spec that is wrong."""
    return lambda place: place.set(field, value)


def told_of(case: Case, place: Place) -> tuple[str, dict[str, str], dict[str, str]]:
    """What a user is told, and the files before and after."""
    command = case.spoil(place)
    place.write_spec()
    before = place.files()
    text = place.told(*(command if isinstance(command, tuple) else SUBMIT))
    return text, before, place.files()


def kept(file: Path) -> dict[str, str]:
    """The kept words: `## title` and what follows it."""
    parts = re.split(r"^## (.*)\n", file.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {title: text.strip("\n") + "\n" for title, text in zip(parts[::2], parts[1::2], strict=True)}


def keep(file: Path, title: str, text: str) -> None:
    """Replace the words of one case, or add them."""
    words = {**(kept(file) if file.exists() else {}), title: text}
    file.write_text("".join(f"## {name}\n{told}\n" for name, told in words.items()), encoding="utf-8")


KEEPS = os.environ.get("HPCSFT_KEEP_WORDS") == "1"
