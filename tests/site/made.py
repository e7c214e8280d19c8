"""Clusters for tests: from recorded output of a real Slurm 22.05, and made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcsft.site.accounts import parse_accounts
from hpcsft.site.nodes import parse_nodes
from hpcsft.site.parse import enforced, parse_config, parse_partitions, settings
from hpcsft.site.records import NodeKind, Partition, Site

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> str:
    """What a real Slurm has printed, of which paths, hosts and the kernel's name are changed."""
    return (RECORDED / f"{name}.txt").read_text()


def recorded_site(config: str = "config", partitions: str = "partitions") -> Site:
    """The MiniSlurm with accounts that these texts were recorded on; with another config, without them."""
    values = settings(recorded(config))
    site = parse_config(values, "root", ["root"])
    known: dict[str, Any] = {"accounts_problem": "this cluster keeps no accounts"}
    if config == "config":
        texts = (recorded("associations"), "physics\n", recorded("qos"))
        known = {"accounts": parse_accounts(site.name, *texts, enforced(values))}
    found = parse_partitions(recorded(partitions), parse_nodes(recorded("nodes")), site.preempt_mode)
    return site.model_copy(update={"partitions": found, **known})


def partition(name: str, hosts: str = "n[1-4]", **values: Any) -> Partition:
    """A partition of four nodes."""
    kind = NodeKind(count=4, usable=4, cpus=64, memory_mb=512_000, gpus=4, gpu_type="a100", names=hosts)
    return Partition(name=name, **{"nodes": [kind], **values})


def preempting_site(mode: str = "REQUEUE", grace_s: int = 0, **values: Any) -> Site:
    """`low` is preempted by `high`; KillWait is Slurm's default of 30 s."""
    low = partition("low", default=True, preempt_mode=mode, grace_s=grace_s)
    high = partition("high", priority_tier=10, preempt_mode="REQUEUE")
    known = {"preempt_type": "partition_prio", "preempt_mode": "REQUEUE", "partitions": [low, high], "user": "ada"}
    return Site(name="c", version="23.11.4", **{**known, **values})
