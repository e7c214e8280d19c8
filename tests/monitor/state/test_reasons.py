"""Guards that a reason of Slurm's is told in words, and that one without words is told as it is."""

from __future__ import annotations

import pytest

from hpcsft.monitor.state.reasons import plain_reason


@pytest.mark.parametrize("code", ["", "None", "(null)"])
def test_no_reason_is_none(code):
    assert plain_reason(code) is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("Priority", "other jobs come first"),
        ("Resources", "first in line for free nodes"),
        ("JobArrayTaskLimit", "cluster.array_parallelism"),
        ("JobHeldUser", "scontrol release"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-4]", "maintenance"),
        ("ReqNodeNotAvail(Unavailable:n1)", "maintenance"),
        ("launch failed requeued held", "scontrol release"),
        ("PartitionTimeLimit", "lower cluster.*.time"),
        ("AssocGrpGRES", "your account is at its limit: GPU limit"),
        ("AssocGrpCpuLimit", "your account is at its limit: CPU limit"),
        ("AssocGrpGRESMinutes", "your account is at its limit: budget of GPU hours"),
        ("AssocGrpCPURunMinutesLimit", "your account is at its limit: budget of CPU hours"),
        ("AssocMaxJobsLimit", "your account is at its limit: limit of running jobs"),
        ("AssocGrpSubmitJobsLimit", "your account is at its limit: limit of submitted jobs"),
        ("QOSMaxGRESPerUser", "the QOS is at its limit: GPU limit for one user"),
        ("QOSMaxJobsPerUserLimit", "the QOS is at its limit: limit of running jobs for one user"),
        ("QOSGrpNodeLimit", "the QOS is at its limit: node limit"),
        ("QOSMaxNodePerJobLimit", "asks for more than the QOS allows: node limit"),
        ("QOSMinCpuNotSatisfied", "asks for less than the QOS demands: CPU"),
        ("MaxGRESPerAccount", "your account is at its limit: GPU limit for one account"),
        ("MaxMemPerLimit", "your account is at its limit: memory limit"),
    ],
)
def test_codes_become_words(code, words):
    text = plain_reason(code)
    assert text and words in text


@pytest.mark.parametrize("code", ["SomethingNew", "[/x]", "OutOfLuck"])
def test_what_has_no_words_is_told_as_it_is(code):
    assert plain_reason(code) == code
