"""What a preemption does to a job here: whether there is one, with how much notice, and what becomes of the job. Pure.

PreemptType=partition_prio goes by the partition, its PreemptMode and its GraceTime; PreemptType=qos by those of the
job's QOS. Slurm sends SIGTERM, waits for the grace time, ends the job with another SIGTERM, and kills what is left
after KillWait, at least 5 s. Without grace time there is only the second SIGTERM.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from hpcsft.site.records import Partition, Site

LEAST_KILL_WAIT_S = 5
"""slurmd waits no less between SIGTERM and SIGKILL, whatever KillWait says."""


class Preemption(NamedTuple):
    """What happens to a preempted job."""

    mode: str
    """REQUEUE, CANCEL or SUSPEND."""
    grace_s: int
    kill_wait_s: int
    by: str
    """Who sets mode and grace: `partition low` or `QOS scavenger`."""

    @property
    def notice_s(self) -> int:
        """Seconds between the first signal and the kill, at least."""
        return self.grace_s + self.kill_wait_s


def kill_wait_s(site: Site) -> int:
    """Seconds between SIGTERM and SIGKILL at the end of a job."""
    return max(site.kill_wait_s, LEAST_KILL_WAIT_S)


def preemption(site: Site, partition: Partition, qos: str | None = None) -> Preemption | None:
    """What happens to a preempted job of this partition and QOS (None: normal); None if nothing preempts it."""
    if site.preempt_type is None or site.preempt_mode == "OFF":
        return None
    if site.preempt_type == "qos":
        return _by_qos(site, qos or "normal")
    if site.preempt_type == "partition_prio" and not any(_outranks(other, partition) for other in site.partitions):
        return None
    return _preemption(site, partition.preempt_mode, partition.grace_s, f"partition {partition.name}")


def _by_qos(site: Site, name: str) -> Preemption | None:
    if site.accounts is None:
        return _preemption(site, site.preempt_mode, 0, "PreemptMode of the cluster")
    known = {qos.name.lower(): qos for qos in site.accounts.qos}
    qos = known.get(name.lower())
    rivals = {rival.lower() for other in known.values() for rival in other.preempts}
    if qos is None or qos.name.lower() not in rivals:
        return None
    return _preemption(site, qos.preempt_mode or site.preempt_mode, qos.grace_s, f"QOS {qos.name}")


def _preemption(site: Site, mode: str, grace_s: int, by: str) -> Preemption | None:
    return None if mode in ("OFF", "GANG") else Preemption(mode, grace_s, kill_wait_s(site), by)


def _outranks(other: Partition, partition: Partition) -> bool:
    """May jobs of `other` preempt those of `partition`: a higher tier on some of the same nodes?"""
    if other.priority_tier <= partition.priority_tier:
        return False
    theirs, own = _hosts(other), _hosts(partition)
    return not theirs or not own or not theirs.isdisjoint(own)


def _hosts(partition: Partition) -> frozenset[str]:
    return frozenset().union(*(expanded(kind.names) for kind in partition.nodes))


@cache
def expanded(hosts: str) -> frozenset[str]:
    """The names in a host list of `NodeKind`.

    >>> sorted(expanded("gpu,n[08-10,12]"))
    ['gpu', 'n08', 'n09', 'n10', 'n12']
    """
    names: set[str] = set()
    for head, numbers, tail in re.findall(r"([^,\[\]]+)(?:\[([\d,-]+)\])?([^,\[\]]*)", hosts):
        for part in numbers.split(",") if numbers else [""]:
            first, _, last = part.partition("-")
            every = range(int(first), int(last or first) + 1) if part else [None]
            names |= {head + ("" if number is None else f"{number:0{len(first)}d}") + tail for number in every}
    return frozenset(names)
