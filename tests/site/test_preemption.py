import pytest

from hpcsft.site.preemption import preemption
from hpcsft.site.records import Accounts, Qos
from tests.site.made import partition, preempting_site, recorded_site


def test_a_higher_partition_preempts_by_the_rules_of_the_lower():
    site = recorded_site("config-without-accounts", "partitions-cancel")
    found = preemption(site, site.partition("low"))
    assert (found.mode, found.grace_s, found.by) == ("CANCEL", 15, "partition low")
    assert preemption(site, site.partition("high")) is None, "no partition is above it"


@pytest.mark.parametrize(("kill_wait_s", "notice_s"), [(30, 130), (0, 105)])
def test_the_notice_is_the_grace_and_the_wait_of_slurmd_which_is_never_short(kill_wait_s, notice_s):
    site = preempting_site(grace_s=100, kill_wait_s=kill_wait_s)
    assert preemption(site, site.partition("low")).notice_s == notice_s


def test_partitions_without_a_common_node_leave_each_other_alone():
    low, high = partition("low", hosts="n[1-4]", preempt_mode="REQUEUE"), partition("high", "g[1-4]", priority_tier=9)
    assert preemption(preempting_site(partitions=[low, high]), low) is None
    shared = partition("high", "g1,n[4-5]", priority_tier=9)
    assert preemption(preempting_site(partitions=[low, shared]), low) is not None


@pytest.mark.parametrize("mode", ["OFF", "GANG"])
def test_a_partition_may_be_spared(mode):
    site = preempting_site(mode)
    assert preemption(site, site.partition("low")) is None


@pytest.mark.parametrize("values", [{"preempt_type": None}, {"preempt_mode": "OFF"}])
def test_a_cluster_may_preempt_nobody(values):
    site = preempting_site(**values)
    assert preemption(site, site.partition("low")) is None


def by_qos(*qos):
    return preempting_site(preempt_type="qos", preempt_mode="CANCEL", accounts=Accounts(qos=list(qos)))


def test_with_preempt_qos_the_qos_decides_and_not_the_partition():
    site = by_qos(
        Qos(name="normal"),
        Qos(name="scavenger", grace_s=90, preempt_mode="REQUEUE"),
        Qos(name="urgent", preempts=["Normal", "scavenger"]),
    )
    low = site.partition("low")
    assert preemption(site, low, "scavenger")[:2] == ("REQUEUE", 90)
    assert preemption(site, low)[:2] == ("CANCEL", 0), "a job without a QOS has that called normal"
    assert preemption(site, low, "urgent") is None
    assert preemption(site, low, "forgotten") is None


def test_with_preempt_qos_and_no_accounts_the_worst_is_taken():
    site = preempting_site(preempt_type="qos", preempt_mode="CANCEL")
    assert preemption(site, site.partition("high"))[:2] == ("CANCEL", 0)
