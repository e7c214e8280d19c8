"""A cluster as people know them, and specs for it."""

from __future__ import annotations

from typing import Any

from hpcsft.plan import Plan, make_plan
from hpcsft.site.records import Accounts, Association, NodeKind, Partition, Qos, Site
from hpcsft.spec import ExperimentSpec
from tests.estimate.models import spec_of

A100 = NodeKind(count=8, usable=8, cpus=64, memory_mb=512_000, gpus=8, gpu_type="a100_80gb", features=["ib", "a100"])
PLAIN = NodeKind(count=20, usable=20, cpus=48, memory_mb=192_000, features=["ib", "skylake"])


def cluster(**values: Any) -> Site:
    """`gpu` (default) with 8 nodes of 8 A100, and `cpu`; what `values` say goes over it."""
    gpu = Partition(name="gpu", default=True, max_time_min=1440, nodes=[A100])
    cpu = Partition(name="cpu", max_time_min=10_080, nodes=[PLAIN])
    known = {"name": "c", "version": "23.11.4", "user": "ada", "groups": ["users"], "partitions": [gpu, cpu]}
    return Site(**{**known, **values})


def with_gpu(**values: Any) -> Site:
    """The same cluster, with other properties of its partition `gpu`."""
    site = cluster()
    return site.model_copy(update={"partitions": [site.partitions[0].model_copy(update=values), site.partitions[1]]})


def accounts(*enforced: str, **values: Any) -> Accounts:
    """ada has physics (default), and chemistry in `cpu` only."""
    known = {
        "default_account": "physics",
        "associations": [
            Association(account="physics", qos=["normal", "long"], default_qos="normal"),
            Association(account="chemistry", partition="cpu", qos=["normal"], default_qos="normal", max_time_min=60),
        ],
        "qos": [Qos(name="normal"), Qos(name="long", max_time_min=600, max_nodes=2, max_submitted_per_user=5)],
        "enforced": list(enforced or ("associations", "limits", "qos")),
    }
    return Accounts(**{**known, **values})


def planned(**sections: Any) -> tuple[ExperimentSpec, Plan]:
    """A spec with `sections`, and its plan."""
    spec = spec_of(**sections)
    return spec, make_plan(spec)
