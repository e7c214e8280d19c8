"""Do training rows fit the positions that the model was made for? Pure but for reading config.json."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcsft.preflight.finding import Finding
from hpcsft.spec import ExperimentSpec


def read_config(model: str) -> dict[str, Any]:
    """config.json of a model's folder; empty for a GGUF file, an adapter, or a model that is not here yet."""
    file = Path(model) / "config.json"
    found = json.loads(file.read_text(encoding="utf-8")) if os.path.isfile(file) else {}
    return found if isinstance(found, dict) else {}


def context_findings(spec: ExperimentSpec, config: Mapping[str, Any]) -> Iterator[Finding]:
    """A warning if rows are longer than the model's positions: it learns there what it has never been able to do."""
    inner = config.get("text_config")
    longest = {**config, **(inner if isinstance(inner, dict) else {})}.get("max_position_embeddings")
    if isinstance(longest, int) and spec.data.max_length > longest:
        message = f"rows of up to {spec.data.max_length:,} tokens, and the model was made for {longest:,} positions"
        hint = f"data.max_length={longest}, or a model with a longer context"
        yield Finding(level="warning", where="data.max_length", message=message, hint=hint)
