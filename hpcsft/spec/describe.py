"""The fields of a spec as a Markdown table, from the models themselves: what the README shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hpcsft.spec.cluster import ClusterSpec
from hpcsft.spec.experiment import ExperimentSpec
from hpcsft.spec.load import model_of


def fields_table() -> str:
    """One row per field: its path, its default, and its docstring.

    What a stage's resources share with the `cluster` section stands there once.
    """
    rows = [f"| `{path}` | {default} | {meaning} |" for path, default, meaning in _fields(ExperimentSpec, "")]
    return "\n".join(["| field | default | meaning |", "| --- | --- | --- |", *rows])


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        section = model_of(field.annotation)
        if section is not None:
            yield from _fields(section, f"{prefix}{name}.")
        elif not (prefix.startswith("cluster.") and prefix != "cluster." and name in ClusterSpec.model_fields):
            yield prefix + name, _default(field), (field.description or "").replace("\n", " ").replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True)
    return "required" if value is PydanticUndefined else f"`{json.dumps(value)}`"
