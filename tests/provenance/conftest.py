"""Runs of no cluster, also where other tests have a Slurm running."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_slurm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here asks the Slurm that others have started, but for those that are about it."""
    if "slurm" not in request.fixturenames:
        monkeypatch.delenv("SLURM_CONF", raising=False)
