"""The session fixture `slurm`; tests/conftest.py imports it."""

import os
from collections.abc import Iterator

import pytest

from .minislurm import MiniSlurm
from .settings import unavailable


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniSlurm]:
    """A MiniSlurm that is up, with SLURM_CONF set: code under test finds it as it would find a site's Slurm.

    Without Slurm's programs or root the test is skipped; with HPCSFT_REQUIRE_SLURM=1, as in CI, it fails.
    """
    if reason := unavailable():
        if os.environ.get("HPCSFT_REQUIRE_SLURM") == "1":
            pytest.fail(f"HPCSFT_REQUIRE_SLURM=1, but {reason}", pytrace=False)
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch, MiniSlurm(tmp_path_factory.mktemp("slurm")) as cluster:
        patch.setenv("SLURM_CONF", str(cluster.conf))
        yield cluster
