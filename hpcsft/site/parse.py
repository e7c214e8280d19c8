"""What `scontrol show config` and `scontrol show partition` print, as records. Pure.

The texts differ between versions of Slurm: what is missing or odd is taken for unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hpcsft.site.fields import minutes, mode, names, seconds, text, whole
from hpcsft.site.records import NodeKind, Partition, Site


def settings(output: str) -> dict[str, str]:
    """The lines `Name = value` of `scontrol show config`."""
    lines = (line.partition("=") for line in output.splitlines())
    return {name.strip(): value.strip() for name, sign, value in lines if sign}


def parse_config(config: Mapping[str, str], user: str, groups: list[str]) -> Site:
    """A site without its partitions and accounts, from its `settings`."""
    kind = (text(config.get("PreemptType")) or "").rpartition("/")[2].lower()
    return Site(
        name=text(config.get("ClusterName")) or "unknown",
        version=text(config.get("SLURM_VERSION")) or "unknown",
        user=user,
        groups=groups,
        kill_wait_s=_known(seconds(config.get("KillWait")), 30),
        preempt_type=None if kind in ("", "none") else kind,
        preempt_mode=mode(config.get("PreemptMode")) or "OFF",
        preempt_exempt_s=seconds(config.get("PreemptExemptTime")) or 0,
        sends_user_signal=_sends_user_signal(config),
        requeue=whole(config.get("JobRequeue")) != 0,
        enforces_limits_at_once=(config.get("EnforcePartLimits") or "NO").upper() in ("ALL", "ANY", "YES"),
        max_array_size=whole(config.get("MaxArraySize")),
        max_submitted=whole(config.get("MaxJobCount")),
        forgets_after_s=seconds(config.get("MinJobAge")),
    )


def _sends_user_signal(config: Mapping[str, str]) -> bool:
    """Old and new versions of Slurm have this in different places."""
    now = names(config.get("PreemptParameters")) or []
    before = names(config.get("SlurmctldParameters")) or []
    return "send_user_signal" in now or "preempt_send_user_signal" in before


def keeps_accounts(config: Mapping[str, str]) -> bool:
    """Is there a database behind sacctmgr?"""
    return (text(config.get("AccountingStorageType")) or "").endswith("slurmdbd")


def enforced(config: Mapping[str, str]) -> list[str]:
    """AccountingStorageEnforce, in lower case."""
    found = names(config.get("AccountingStorageEnforce")) or []
    return [word.strip().lower() for word in found if word.strip().lower() != "none"]


def parse_partitions(output: str, nodes: Mapping[str, list[NodeKind]], cluster_mode: str) -> list[Partition]:
    """The lines of `scontrol show partition -o`, with the nodes that `parse_nodes` has found in each."""
    found = []
    for line in output.splitlines():
        fields = dict(re.findall(r"(?:^|\s)(\w+)=(.*?)(?=\s+\w+=|\s*$)", line))
        if name := fields.get("PartitionName"):
            found.append(_partition(name, fields, nodes.get(name, []), cluster_mode))
    return found


def _partition(name: str, fields: Mapping[str, str], nodes: list[NodeKind], cluster_mode: str) -> Partition:
    return Partition(
        name=name,
        state=fields.get("State", "UP"),
        default=fields.get("Default") == "YES",
        max_time_min=minutes(fields.get("MaxTime")),
        default_time_min=minutes(fields.get("DefaultTime")),
        min_nodes=whole(fields.get("MinNodes")) or 0,
        max_nodes=whole(fields.get("MaxNodes")),
        max_cpus_per_node=whole(fields.get("MaxCPUsPerNode")),
        max_memory_per_node_mb=whole(fields.get("MaxMemPerNode")),
        allow_accounts=names(fields.get("AllowAccounts")),
        deny_accounts=names(fields.get("DenyAccounts")) or [],
        allow_qos=names(fields.get("AllowQos")),
        deny_qos=names(fields.get("DenyQos")) or [],
        allow_groups=names(fields.get("AllowGroups")),
        qos=text(fields.get("QoS")),
        preempt_mode=mode(fields.get("PreemptMode")) or cluster_mode,
        grace_s=seconds(fields.get("GraceTime")) or 0,
        priority_tier=_known(whole(fields.get("PriorityTier")), 1),
        root_only=fields.get("RootOnly") == "YES",
        nodes=nodes,
    )


def _known(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value
