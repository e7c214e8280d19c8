"""A real Slurm is asked, with accounts and without."""

import os

import pytest

from hpcsft.errors import ClusterError
from hpcsft.site import read
from hpcsft.site.read import read_site
from hpcsft.slurm_client import run_client
from tests.site.made import recorded_site

pytestmark = pytest.mark.slurm


def test_a_cluster_without_accounts(slurm):
    site = read_site()
    assert (site.name, site.version, site.user) == (
        "minislurm",
        slurm.run("sinfo", "--version").stdout.split()[1],
        "root",
    )
    assert "root" in site.groups
    assert (site.accounts, site.accounts_problem) == (None, "this cluster keeps no accounts")
    low, high = site.partitions
    assert [(kind.names, kind.usable, kind.gpus) for kind in low.nodes] == [("n[1-4]", 4, 4)]
    assert site.partition(None) == low
    assert site.partition("high") == high


def test_a_node_that_is_drained_is_not_usable(slurm):
    reason = os.fsdecode(b"Reason=caf\xe9 State=IDLE")  # in Latin-1
    slurm.run("scontrol", "update", "NodeName=n2", "State=DRAIN", reason)
    try:
        [kind] = read_site().partition("low").nodes
        assert (kind.count, kind.usable) == (4, 3)
    finally:
        slurm.run("scontrol", "update", "NodeName=n2", "State=RESUME")


def test_a_slurm_that_does_not_answer_is_an_error(slurm, monkeypatch, tmp_path):
    (tmp_path / "slurm.conf").touch()
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    with pytest.raises(ClusterError, match="scontrol failed"):
        read_site()


def test_the_accounts_of_the_user(accounted_slurm, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(accounted_slurm.conf))
    assert read_site().accounts == recorded_site().accounts, "as it was recorded"


def test_a_database_that_hangs_is_waited_for_not_long_and_leaves_the_rest(accounted_slurm, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(accounted_slurm.conf))
    monkeypatch.setattr(read, "ACCOUNTS_TIMEOUT_S", 0.5)
    accounted_slurm.freeze("slurmdbd")
    try:
        site = read_site()
    finally:
        accounted_slurm.thaw("slurmdbd")
    assert (site.accounts, site.accounts_problem) == (None, "sacctmgr does not answer within 0.5 s")
    assert [partition.name for partition in site.partitions] == ["low", "high"]


def test_a_site_that_keeps_its_nodes_and_partitions_private(slurm, monkeypatch):
    """PrivateData=nodes,partitions: Slurm answers, and says nothing to who is no operator."""

    def private(*command, ignore=(), **options):
        if command[:2] in (("scontrol", "show"),) and command[2] in ("partition", "node"):
            assert "Access/permission denied" in ignore
            return ""
        return run_client(*command, ignore=ignore, **options)

    monkeypatch.setattr(read, "run_client", private)
    assert read_site().partitions == []
