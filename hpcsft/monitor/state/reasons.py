"""Slurm's reasons why a job waits, in words. Pure.

The codes are those of Slurm's page "Job Reason Codes".
"""

from __future__ import annotations

import re

REASONS = {
    "Resources": "first in line for free nodes",
    "Priority": "other jobs come first",
    "BeginTime": "not eligible yet: after a requeue Slurm holds a job for up to two minutes",
    "Cleaning": "the attempt before is being cleaned up",
    "JobArrayTaskLimit": "as many tasks of the array run as cluster.array_parallelism allows",
    "JobHeldUser": "held by you; scontrol release JOBID lets it go on",
    "JobHeldAdmin": "held by an administrator of the cluster",
    "launch failed requeued held": "a node failed to start it, and Slurm holds it: scontrol release JOBID",
    "Dependency": "for the stage before",
    "DependencyNeverSatisfied": "the stage before did not end well",
    "Reservation": "for its reservation",
    "ReservationDeleted": "its reservation is gone",
    "Licenses": "for a licence",
    "NodeDown": "a node that it needs is down",
    "PartitionDown": "the partition is switched off",
    "PartitionInactive": "the partition takes no jobs now",
    "PartitionNodeLimit": "asks for more nodes than the partition has, or too many of them are down",
    "PartitionTimeLimit": "asks for more time than the partition allows: lower cluster.*.time",
    "BadConstraints": "no node has what cluster.constraint asks for",
    "AccountNotAllowed": "this account may not use the partition",
    "QOSNotAllowed": "this QOS may not be used in the partition",
    "InvalidAccount": "the account is not valid",
    "InvalidQOS": "the QOS is not valid",
    "QOSUsageThreshold": "the QOS has used up its share",
    "ReqNodeNotAvail": "nodes that it needs are down or reserved, for a maintenance perhaps",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": (
        "nodes that it needs are down, or kept for partitions of higher priority"
    ),
    "FrontEndDown": "a front end is down",
    "SchedDefer": "the scheduler puts off new jobs for a moment",
    "Prolog": "its nodes are being prepared",
    "RaisedSignal": "was ended by a signal",
}
"""Codes with a meaning of their own."""

HOLDERS = {"Assoc": "your account", "QOS": "the QOS"}

RESOURCES = (
    ("GRES", "GPU"),
    ("Cpu", "CPU"),
    ("CPU", "CPU"),
    ("Mem", "memory"),
    ("Node", "node"),
    ("Submit", "limit of submitted jobs"),
    ("Job", "limit of running jobs"),
    ("Wall", "time"),
    ("Energy", "energy"),
    ("BB", "burst buffer"),
    ("Billing", "billing"),
    ("License", "licence"),
)

SHARES = (("PerUser", " for one user"), ("PerAccount", " for one account"), ("PerNode", " on one node"))


def plain_reason(code: str) -> str | None:
    """Why a job waits, in words; the code itself where there are none for it, None where Slurm gives no reason."""
    if code in ("", "None", "(null)"):
        return None
    text = REASONS.get(code) or REASONS.get(re.split("[,( ]", code, maxsplit=1)[0])
    return text or _limit(code) or code


def _limit(code: str) -> str | None:
    """AssocGrpGRESMinutes, QOSMaxCpuPerUserLimit, MaxGRESPerAccount and their kin."""
    found = re.match(r"(Assoc|QOS)?(Grp|Max|Min)?(.*)", code)
    assert found
    holder, kind, what = found.groups()
    name = next((name for part, name in RESOURCES if part in what), None)
    if name is None or not (holder or kind):
        return None
    whose = HOLDERS.get(holder or "", "your account")
    if kind == "Min":
        return f"asks for less than {whose} demands: {name}"
    limit = name if name.startswith("limit") else f"budget of {name} hours" if "Minutes" in what else f"{name} limit"
    limit += next((words for part, words in SHARES if part in what), "")
    if "PerJob" in what or "PerNode" in what:
        return f"asks for more than {whose} allows: {limit}"
    return f"{whose} is at its limit: {limit}"
