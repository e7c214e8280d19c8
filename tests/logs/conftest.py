"""The spec of a run that only has to be told about: nothing of it is read, so no model is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_spec_values


@pytest.fixture
def spec_values(tmp_path: Path) -> dict[str, Any]:
    """As tests/conftest.py's, with inputs that are not there."""
    return make_spec_values(Path("/models/tiny"), Path("/data/a.jsonl"), Path("/data/p.json"), tmp_path / "runs")
