"""How the answers of a checkpoint were made, for whoever reads them.

evaluate/CHECKPOINT/generation.json   Conditions, written by every task before its first answer
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from hpcsft.records import Record, read_json
from hpcsft.rundir import RunDir


class Conditions(Record):
    """What the answers of one checkpoint hang on, besides the model."""

    settings: dict[str, Any]
    """`evaluate.generation` of the spec."""
    seed: int
    template: str | None
    """Name of the template that prompts were put in; None if they were given bare."""
    stop_tokens: list[int]
    """Ids of the tokens that ended an answer."""
    stop_texts: list[str]
    batching: str
    """sorted or continuous. What it was for a single answer is in the journals."""
    dtype: str
    """In bfloat16 the shape of a batch changes the last bits, and with them some answers."""
    attention: str
    device: str
    """Kind of device: cpu or cuda."""
    device_name: str
    """The GPU's, empty on a CPU."""
    versions: dict[str, str]
    """Of torch and transformers."""


def conditions_file(run: RunDir, checkpoint: str) -> Path:
    """evaluate/CHECKPOINT/generation.json."""
    return run.evaluate / checkpoint / "generation.json"


def read_conditions(run: RunDir, checkpoint: str) -> Conditions | None:
    """How the answers of `checkpoint` were made; None if that was not written."""
    try:
        return Conditions.model_validate(read_json(conditions_file(run, checkpoint)))
    except FileNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Of the packages that compute answers."""
    return {name: version(name) for name in ("torch", "transformers")}
