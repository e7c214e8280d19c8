"""Runs of no cluster, also where other tests have a Slurm running."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here asks the Slurm that others have started."""
    monkeypatch.delenv("SLURM_CONF", raising=False)
