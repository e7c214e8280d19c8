import pytest

from hpcsft.site.access import closed_because
from hpcsft.site.records import Accounts, Association
from tests.site.made import partition, preempting_site

PHYSICS = Association(account="physics", qos=["normal"])


def why(accounts=None, user="ada", **values):
    site = preempting_site(user=user, groups=["staff"], accounts=accounts)
    return closed_because(site, partition("gpu", **values))


@pytest.mark.parametrize(
    "values", [{}, {"allow_groups": ["staff"]}, {"state": "DOWN"}, {"allow_accounts": ["chemistry"]}]
)
def test_open_as_far_as_is_known(values):
    """DOWN takes jobs, and starts them later; whose accounts are not known, of them nothing is said."""
    assert why(**values) is None


@pytest.mark.parametrize(
    ("reason", "values"),
    [
        ("it is in state DRAIN", {"state": "DRAIN"}),
        ("for root only", {"root_only": True}),
        ("for the groups hpc, wheel", {"allow_groups": ["hpc", "wheel"]}),
    ],
)
def test_closed_to_a_user(reason, values):
    assert why(**values) == reason


def test_root_goes_everywhere():
    assert why(user="root", root_only=True, allow_groups=["hpc"]) is None


@pytest.mark.parametrize(
    ("reason", "values"),
    [
        (None, {"allow_accounts": ["Physics"], "allow_qos": ["normal"], "deny_accounts": ["guests"]}),
        ("for the accounts chemistry", {"allow_accounts": ["chemistry"]}),
        ("closed to your accounts", {"deny_accounts": ["physics"]}),
        ("for the QOS long", {"allow_qos": ["long"]}),
    ],
)
def test_by_accounts(reason, values):
    assert why(Accounts(associations=[PHYSICS]), **values) == reason


def test_an_association_for_another_partition_is_none():
    elsewhere = Association(account="physics", partition="cpu")
    assert why(Accounts(associations=[elsewhere], enforced=["associations"])) == "none of your accounts is for it"
    assert why(Accounts(associations=[elsewhere])) is None, "where they are not enforced, a job needs none"


def test_groups_are_named_in_letters_of_either_size():
    assert why(allow_groups=["Staff"]) is None
