"""Limits that sbatch lets pass, so that the job would wait for ever: told before, with what is allowed."""

from __future__ import annotations

import pytest

from hpcsft.preflight.resources.limits import count_findings, limit_findings
from hpcsft.site.records import Partition, Qos, Site
from tests.preflight.made import A100, accounts, cluster, planned, with_gpu

GPUS = {"gpus_per_node": 8, "cpus_per_task": 8}


def found(site: Site, stage: str = "train", **given) -> list[str]:
    spec, plan = planned(cluster={**GPUS, **given}, evaluate={"prompts": "p.json", "judge": {"kind": "local"}})
    return [line for finding in limit_findings(spec, plan.stage(stage), site) for line in finding.lines()]


def test_a_spec_that_fits_is_fine():
    assert found(cluster()) == []


def test_a_partition_that_is_not_there_and_none_at_all():
    assert found(cluster(), partition="gpus") == [
        "error: cluster.partition: this cluster has no partition 'gpus'",
        "hint: did you mean gpu? there are cpu, gpu",
    ]
    assert found(cluster(), train={"partition": "x"})[0].startswith("error: cluster.train.partition: ")
    assert "has no default one" in found(with_gpu(default=False))[0]


def test_of_several_partitions_one_is_enough_but_all_must_exist():
    assert found(cluster(), partition="cpu,gpu") == []
    assert "no partition 'nope'" in found(cluster(), partition="gpu,nope")[0]


@pytest.mark.parametrize(
    ("given", "where", "most"),
    [
        ({"time": "2-00:00:00"}, "cluster.time", "1-00:00:00 that partition gpu allows"),
        ({"qos": "long"}, "cluster.train.time", "10:00:00 that QOS long allows"),
    ],
)
def test_a_time_limit_above_what_is_allowed(given, where, most):
    error, hint = found(cluster(accounts=accounts()), **given)
    assert error.startswith(f"error: {where}: the time limit ") and most in error
    assert "training saves, and goes on in the next job" in hint


def test_a_longer_partition_is_named_if_it_has_the_nodes():
    fat = Partition(name="fat", nodes=[A100])
    site = with_gpu()
    _, hint = found(site.model_copy(update={"partitions": [*site.partitions, fat]}), time="2-00:00:00")
    assert hint.endswith("partitions that allow 2-00:00:00: fat")  # cpu allows it, and has no GPUs


def test_the_qos_of_the_partition_comes_first_and_its_own_limit_counts_too():
    site = with_gpu(qos="long").model_copy(update={"accounts": accounts()})
    assert "10:00:00 that QOS long allows" in found(site)[0]
    site = with_gpu(qos="long", max_time_min=60).model_copy(update={"accounts": accounts()})
    assert "1:00:00 that partition gpu allows" in found(site)[0]


def test_a_limit_of_the_qos_stands_instead_of_the_accounts_own():
    site = cluster(accounts=accounts())
    site = site.model_copy(update={"partitions": [p.model_copy(update={"qos": "long"}) for p in site.partitions]})
    given = {"account": "chemistry", "partition": "cpu", "gpus_per_node": 0, "time": "05:00:00"}
    assert found(site, **given) == []  # 10 h of the QOS, 1 h of the account
    assert "1:00:00 that account chemistry allows" in found(cluster(accounts=accounts()), **given)[0]


def test_limits_that_are_not_enforced_do_not_count():
    assert found(cluster(accounts=accounts("associations")), qos="long") == []


def test_numbers_of_nodes():
    assert (
        "2 that QOS long allows to a job"
        in found(cluster(accounts=accounts()), qos="long", time="01:00:00", train={"nodes": 4})[0]
    )
    error, hint = found(with_gpu(max_nodes=2), train={"nodes": 4})
    assert "4 nodes are above the 2 that partition gpu allows" in error and hint == "hint: cluster.train.nodes=2"
    assert "is for jobs of at least 2 nodes; given 1" in found(with_gpu(min_nodes=2))[0]


def test_an_array_that_is_too_large():
    site = cluster(max_array_size=1001)
    assert found(site, "preprocess", preprocess={"tasks": 1001}) == []
    error, _ = found(site, "preprocess", preprocess={"tasks": 1002})
    assert error.startswith("error: cluster.preprocess.tasks: an array of 1002 jobs is larger than the 1001")


def test_more_jobs_than_may_be_in_the_queue():
    _, plan = planned(cluster={**GPUS, "qos": "long", "preprocess": {"tasks": 4}})
    site = cluster(accounts=accounts())
    (finding,) = count_findings(plan, ["preprocess", "train", "report"], site)
    assert finding.message == (
        "this submits 6 jobs (4 preprocess + 1 train + 1 report), and QOS long allows 5 in the queue"
    )
    assert not list(count_findings(plan, ["preprocess", "train"], site))
    (finding,) = count_findings(plan, ["preprocess", "train"], cluster(max_submitted=4))
    assert "MaxJobCount" in finding.message


@pytest.mark.parametrize(
    ("flag", "limits", "given"),
    [
        ("partitiontimelimit", {"max_time_min": 60}, {"time": "02:00:00"}),
        ("partitionmaxnodes", {"max_nodes": 1}, {"train": {"nodes": 2}}),
        ("partitionminnodes", {"min_nodes": 2}, {}),
    ],
)
def test_a_qos_may_go_beyond_its_partition(flag, limits, given):
    known = accounts()
    free = known.model_copy(update={"qos": [Qos(name="normal", flags=[flag]), Qos(name="long")]})
    assert found(with_gpu(**limits).model_copy(update={"accounts": known}), **given)[0].startswith("error: ")
    assert found(with_gpu(**limits).model_copy(update={"accounts": free}), **given) == []


def test_of_the_limits_of_several_qos_the_first_that_is_set_counts():
    tight, wide = Qos(name="normal", max_submitted_per_user=1), Qos(name="gpuq", max_submitted_per_user=100)
    over = tight.model_copy(update={"flags": ["overpartqos"]})
    _, plan = planned(cluster=GPUS)
    for own, number in ((tight, 0), (over, 1)):
        site = with_gpu(qos="gpuq").model_copy(update={"accounts": accounts(qos=[own, wide])})
        assert len(list(count_findings(plan, plan.stage_names, site))) == number


def test_a_cluster_without_arrays_asks_for_no_array_of_none():
    assert "hint: cluster.preprocess.tasks=1" in found(
        cluster(max_array_size=0), stage="preprocess", preprocess={"tasks": 2}
    )
