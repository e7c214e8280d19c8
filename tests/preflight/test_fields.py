"""A message names the field that people have to change."""

from __future__ import annotations

import pytest

from hpcsft.preflight.fields import field_of
from hpcsft.preflight.nearest import instead, listed
from tests.preflight.made import planned


@pytest.mark.parametrize(
    ("given", "name", "field"),
    [
        ({}, "partition", "cluster.partition"),
        ({"train": {"partition": "gpu"}}, "partition", "cluster.train.partition"),
        ({}, "time", "cluster.train.time"),
        ({"time": "01:00:00"}, "time", "cluster.time"),
        ({}, "nodes", "cluster.train.nodes"),
        ({"gpus_per_node": 4}, "gpus_per_node", "cluster.gpus_per_node"),
        ({"train": {"gpus_per_node": 0}}, "gpus_per_node", "cluster.train.gpus_per_node"),
        ({}, "sbatch", "cluster.sbatch"),
    ],
)
def test_field(given, name, field):
    assert field_of(planned(cluster=given)[0], "train", name) == field


def test_names_instead():
    assert instead("GPU", ["gpu", "cpu"]) == "did you mean gpu? there are cpu, gpu"
    assert instead("x", ["gpu"], "accounts are") == "accounts are gpu"
    assert instead("x", []) == "there is none"
    assert listed([str(number) for number in range(20)]).endswith("11 and 8 more")
