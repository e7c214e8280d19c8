"""A model folder to be damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model_folder.made import make_folder


@pytest.fixture
def model(tmp_path) -> Path:
    return make_folder(tmp_path / "model")
