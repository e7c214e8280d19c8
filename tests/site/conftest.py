"""A real Slurm with real accounts, for the tests that ask it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cluster.accounting import AccountedSlurm, accounting_unavailable
from tests.cluster.settings import unavailable


@pytest.fixture(scope="package")
def accounted_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AccountedSlurm]:
    """An AccountedSlurm that is up; SLURM_CONF is for the tests to set. Skipped where there is no slurmdbd."""
    if reason := unavailable():
        if os.environ.get("HPCSFT_REQUIRE_SLURM") == "1":
            pytest.fail(f"HPCSFT_REQUIRE_SLURM=1, but {reason}", pytrace=False)
        pytest.skip(reason)
    if reason := accounting_unavailable():
        pytest.skip(reason)
    with AccountedSlurm(tmp_path_factory.mktemp("accounted")) as cluster:
        yield cluster
