"""What Slurm's own trial has found nodes for is no error, whatever we read: plugins of a site change what is asked."""

from __future__ import annotations

import pytest

from hpcsft.preflight.resources.limits import limit_findings
from hpcsft.preflight.run import routed
from hpcsft.preflight.trial import Verdict
from hpcsft.site.records import Accounts, Association
from tests.preflight.made import accounts, cluster, planned, with_gpu


def levels(site, accepted, **values):
    spec, plan = planned(cluster={"time": "01:00:00", **values})
    return {found.level for found in limit_findings(spec, plan.stage("train"), site, accepted)}


@pytest.mark.parametrize(
    ("site", "values"),
    [
        (cluster(), {"partition": "made-by-a-plugin"}),
        (cluster(partitions=[cluster().partitions[1]]), {}),
        (cluster(), {"gpus_per_node": 16}),
        (cluster(), {"constraint": "changed-by-a-reboot"}),
        (cluster(), {"train": {"nodes": 16}}),
        (with_gpu(allow_groups=["others"]), {}),
        (with_gpu(root_only=True), {}),
        (with_gpu(state="INACTIVE"), {}),
        (cluster(accounts=Accounts(enforced=["associations"])), {}),
        (cluster(accounts=accounts()), {"qos": "not-told"}),
    ],
)
def test_what_the_trial_looks_at(site, values):
    assert levels(site, False, **values) == {"error"}
    assert levels(site, True, **values) == set()


@pytest.mark.parametrize(
    ("site", "values"),
    [
        (with_gpu(max_time_min=30), {}),
        (with_gpu(max_nodes=1), {"train": {"nodes": 2}}),
        (with_gpu(allow_qos=["others"]).model_copy(update={"accounts": accounts()}), {}),
    ],
)
def test_what_it_looks_at_only_where_limits_are_enforced_at_once(site, values):
    assert levels(site, True, **values) == {"error"}
    assert levels(site.model_copy(update={"enforces_limits_at_once": True}), True, **values) == set()


@pytest.mark.parametrize(("version", "level"), [("22.05.8", "error"), ("24.05.1", "warning")])
def test_newer_versions_count_subaccounts(version, level):
    own = accounts(associations=[Association(account="physics_sub")], default_account="physics_sub")
    site = with_gpu(allow_accounts=["physics"]).model_copy(update={"accounts": own, "version": version})
    assert levels(site, True) == {level}
    assert levels(site, False) == {"error"}


def test_a_partition_that_slurm_chooses_is_the_one_that_counts():
    """Where a plugin of the site routes jobs, the limits of the default partition are not theirs."""
    site = cluster(partitions=[with_gpu(max_time_min=30).partitions[0], *cluster().partitions[1:]])
    spec, plan = planned(cluster={"time": "01:00:00"})
    to_cpu = routed(plan, [Verdict(stage="train", starts="now", nodes="n1", partition="cpu")])
    assert [found.level for found in limit_findings(spec, plan.stage("train"), site)] == ["error"]
    assert limit_findings(spec, to_cpu.stage("train"), site, accepted=True) == []
    _, plan = planned(cluster={"partition": "gpu"})
    assert routed(plan, [Verdict(stage="train", partition="cpu")]) == plan


def test_partitions_that_are_private_are_not_missed():
    assert levels(cluster(partitions=[]), False, partition="gpu") == set()
