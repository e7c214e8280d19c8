"""Names on the Hugging Face hub, of models and of data sets. Pure.

hub:OWNER/NAME[@REVISION]                       a model
hub:OWNER/NAME[/CONFIG][@REVISION][:SPLIT]      a data set
"""

from __future__ import annotations

import re
from typing import NamedTuple

from hpcsft.errors import InputError

PREFIX = "hub:"
"""What a name on the hub begins with; anything else is a path."""

_OWNED = r"hub:(?P<name>\w[\w.-]*/\w[\w.-]*)"
_REVISION = r"(?:@(?P<revision>(?!\S*\.\.)\w[\w./-]*))?"
_MODEL = re.compile(_OWNED + _REVISION, re.ASCII)
_DATA = re.compile(rf"{_OWNED}(?:/(?P<config>[\w.+-]+))?{_REVISION}(?::(?P<split>\w+(?:\.\w+)*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class ModelName(NamedTuple):
    """What the name of a model says."""

    name: str
    revision: str | None

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """The parts of `text`; ValueError if it is no such name."""
        match = _MODEL.fullmatch(text)
        if not match:
            raise ValueError("a model on the hub is hub:OWNER/NAME[@REVISION], such as hub:meta-llama/Llama-2-7b-hf")
        return cls(match["name"], match["revision"])


class DataName(NamedTuple):
    """What the name of a data set says."""

    name: str
    config: str | None
    revision: str | None
    split: str

    @classmethod
    def parse(cls, text: str) -> DataName:
        """The parts of `text`; InputError if it is no such name."""
        match = _DATA.fullmatch(text)
        if not match:
            hint = "hub:OWNER/NAME[/CONFIG][@REVISION][:SPLIT], such as hub:HuggingFaceH4/ultrachat_200k:train_sft"
            raise InputError(f"{text}: not the name of a data set on the hub", hint)
        return cls(match["name"], match["config"], match["revision"], match["split"] or "train")

    def pinned(self, commit: str, config: str) -> str:
        """The same as a name, at that commit and of that configuration."""
        return f"{PREFIX}{self.name}/{config}@{commit}:{self.split}"


def model_name_or_path(value: str) -> str:
    """`value`, which is a path unless it begins with hub:; ValueError if that is no model's name."""
    if is_hub_name(value):
        ModelName.parse(value)
    return value


def is_hub_name(text: str) -> bool:
    """Is it on the hub rather than in a folder?"""
    return text.startswith(PREFIX)


def is_commit(revision: str | None) -> bool:
    """Does `revision` name one state of a repository for ever?"""
    return revision is not None and _COMMIT.fullmatch(revision) is not None
