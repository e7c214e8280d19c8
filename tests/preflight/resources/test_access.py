"""Who may submit where: a user learns it with the names that would do, and is not told off where nobody checks."""

from __future__ import annotations

import pytest

from hpcsft.preflight.resources.access import access_findings
from hpcsft.site.records import Site
from tests.preflight.made import accounts, cluster, planned, with_gpu


def found(site: Site, partition: str = "gpu", **given: str) -> list[str]:
    spec, plan = planned(cluster=given)
    place = site.partition(partition)
    assert place
    return [
        line
        for finding in access_findings(spec, plan.stage("train"), place, site)
        for line in [*finding.lines(), *(["forcible"] if finding.forcible else [])]
    ]


def test_nothing_stands_against_a_usual_user():
    assert found(cluster()) == [] == found(cluster(accounts=accounts()))


@pytest.mark.parametrize(("state", "level"), [("DOWN", "warning"), ("DRAIN", "error"), ("INACTIVE", "error")])
def test_a_partition_that_is_not_up(state, level):
    first, hint, *_ = found(with_gpu(state=state))
    assert first.startswith(f"{level}: cluster.partition: partition gpu ") and state in first
    assert hint == "hint: partitions open to ada: cpu"


@pytest.mark.parametrize(
    ("closed", "message"),
    [
        ({"root_only": True}, "takes jobs of root only"),
        ({"allow_groups": ["physicists"]}, "is for the groups physicists, and ada is in users"),
    ],
)
def test_a_partition_for_others(closed, message):
    lines = found(with_gpu(**closed))
    assert message in lines[0] and lines[1:] == ["hint: partitions open to ada: cpu", "forcible"]


def test_root_and_members_are_let_in():
    assert found(with_gpu(allow_groups=["users"])) == []
    assert found(with_gpu(allow_groups=["x"], root_only=True).model_copy(update={"user": "root"})) == []


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"account": "physix"}, "ada may not charge account physix", "did you mean physics? accounts of ada here are"),
        ({"account": "chemistry"}, "account chemistry may be charged in cpu only, not in gpu", "accounts for gpu are"),
    ],
)
def test_an_account_that_is_not_the_users(given, message, hint):
    error, told, _ = found(cluster(accounts=accounts()), **given)
    assert error.startswith("error: cluster.account: ") and message in error and hint in told


def test_no_account_at_all():
    error, hint, _ = found(cluster(accounts=accounts(associations=[])))
    assert "ada has no account on this cluster" in error and "administrators" in hint
    error, hint, _ = found(cluster(accounts=accounts(default_account=None)))
    assert "no account is given, and ada has no default account" in error and "ada has physics" in hint


def test_accounts_are_no_matter_where_nobody_checks_them():
    assert found(cluster(), account="anything", qos="anything") == []
    assert found(cluster(accounts=accounts("none")), account="anything", qos="anything") == []


def test_accounts_of_a_partition():
    allowed = with_gpu(allow_accounts=["physics"])
    assert found(allowed.model_copy(update={"accounts": accounts()})) == []
    error, hint, _ = found(allowed)
    assert "is for the accounts physics, not for a job without an account" in error
    denied = with_gpu(deny_accounts=["physics"]).model_copy(update={"accounts": accounts()})
    error, hint, _ = found(denied)
    assert error.endswith("partition gpu is closed to account physics") and hint == "hint: take another partition"


@pytest.mark.parametrize(
    ("partition", "given", "error", "hint"),
    [
        ({}, {"qos": "lng"}, "no QOS 'lng' here", "did you mean long?"),
        ({"allow_qos": ["long"]}, {}, "partition gpu is for the QOS long, not for normal", "cluster.qos=long"),
        ({"deny_qos": ["normal"]}, {}, "partition gpu is closed to QOS normal", "another QOS"),
    ],
)
def test_a_qos_that_is_refused(partition, given, error, hint):
    first, second, _ = found(with_gpu(**partition).model_copy(update={"accounts": accounts()}), **given)
    assert first.startswith("error: cluster.qos: ") and error in first and hint in second


def test_a_qos_that_another_account_has():
    lines = found(cluster(accounts=accounts()), "cpu", account="chemistry", qos="long")
    assert "account chemistry may not use QOS long" in lines[0] and lines[1] == "hint: it may use normal"
