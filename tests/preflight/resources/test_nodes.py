"""What no node of a partition has, or too few: told with the field that asks for it and where there are such nodes."""

from __future__ import annotations

import pytest

from hpcsft.preflight.resources.features import features_of, satisfies
from hpcsft.preflight.resources.nodes import node_findings
from hpcsft.site.records import Site
from tests.preflight.made import A100, PLAIN, cluster, planned, with_gpu


def found(site: Site, partition: str = "gpu", **given) -> list[str]:
    spec, plan = planned(train={"global_batch_size": 1440}, cluster=given)
    place = site.partition(partition)
    assert place
    return [line for finding in node_findings(spec, plan.stage("train"), place, site) for line in finding.lines()]


@pytest.mark.parametrize(
    ("partition", "given", "error", "hint"),
    [
        (
            "cpu",
            {"gpus_per_node": 8},
            "gpus_per_node: 8 GPUs a node are asked for, and partition cpu has no GPUs",
            "gpu",
        ),
        (
            "gpu",
            {"gpus_per_node": 9},
            "gpus_per_node: 9 GPUs a node",
            "it has 8 node(s) of 64 CPUs, 500 GB, 8 a100_80gb",
        ),
        ("gpu", {"gpus_per_node": 8, "cpus_per_task": 9}, "cpus_per_task: 72 CPUs (8 tasks x 9) a node", "it has 8"),
        (
            "cpu",
            {"mem_gb": 300},
            "mem_gb: 300 GB a node are asked for, and partition cpu has nodes with at most",
            "gpu",
        ),
        ("gpu", {"constraint": "h100"}, "constraint: of partition gpu no node(s) meet", "'h100'; did you mean a100?"),
        ("gpu", {"train": {"nodes": 9}}, "train.nodes: 9 nodes are asked for, and partition gpu has 8", "enough: cpu"),
    ],
)
def test_what_is_asked_for_and_not_there(partition, given, error, hint):
    first, second = found(cluster(), partition, **given)
    assert first.startswith("error: cluster.") and error in first
    assert hint in second


def test_limits_of_the_partition_on_each_node_count():
    assert found(with_gpu(max_cpus_per_node=32), cpus_per_task=33)[0].endswith("nodes with at most 32 CPUs")
    assert "at most 100.0 GB" in found(with_gpu(max_memory_per_node_mb=102_400), mem_gb=101)[0]


def test_what_no_node_has_at_once():
    fat = PLAIN.model_copy(update={"memory_mb": 2_000_000})
    error, hint = found(with_gpu(nodes=[A100, fat]), gpus_per_node=8, mem_gb=1000)
    assert error == (
        "error: cluster.train: one node with 8 GPUs, 8 CPUs (8 tasks x 1), 1000 GB: "
        "partition gpu has none with all of it at once"
    )
    assert hint.startswith("hint: it has 8 node(s)")


def test_nodes_that_are_away_are_a_warning():
    away = with_gpu(nodes=[A100.model_copy(update={"usable": 1})])
    assert found(away) == []
    warning, hint = found(away, train={"nodes": 2})
    assert warning.startswith("warning: cluster.train.nodes: train needs 2 node(s), and 1 of the 8 such nodes")
    assert "waits until more come back" in hint


def test_a_partition_of_which_no_nodes_are_told_is_left_alone():
    assert found(with_gpu(nodes=[]), gpus_per_node=8) == []


@pytest.mark.parametrize(
    ("constraint", "met"),
    [
        (None, True),
        ("ib", True),
        ("ib&a100", True),
        ("ib&h100", False),
        ("h100|a100", True),
        ("h100,ib", False),
        ("h100|v100", False),
        ("[rack1|rack2]", True),
        ("ib*4", True),
    ],
)
def test_constraints(constraint, met):
    assert satisfies(["ib", "a100"], constraint) is met


def test_features_are_named_in_simple_expressions_only():
    assert features_of("a&b|c") == ["a", "b", "c"]
    assert features_of("[a|b]") is None
