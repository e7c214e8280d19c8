"""What sacctmgr prints of a user's accounts and of the qualities of service, as records. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpcsft.site.fields import minutes, names, seconds, text, whole
from hpcsft.site.fields import mode as preempt_mode
from hpcsft.site.records import Accounts, Association, Qos

ASSOCIATION_FIELDS = "Cluster,Account,Partition,QOS,DefaultQOS,MaxWall,MaxJobs,MaxSubmit"
QOS_FIELDS = "Name,MaxWall,MaxTRES,MaxJobsPU,MaxSubmitPU,GraceTime,PreemptMode,Preempt,Flags"


def parse_accounts(cluster: str, associations: str, default_account: str, qos: str, enforced: list[str]) -> Accounts:
    """From what sacctmgr prints with -nP for ASSOCIATION_FIELDS, DefaultAccount and QOS_FIELDS."""
    of_cluster = [
        row for row in _rows(associations, ASSOCIATION_FIELDS) if row["Cluster"].lower() in (cluster.lower(), "")
    ]
    return Accounts(
        default_account=text(default_account.partition("\n")[0]),
        associations=[_association(row) for row in of_cluster],
        qos=[_qos(row) for row in _rows(qos, QOS_FIELDS)],
        enforced=enforced,
    )


def _rows(output: str, fields: str) -> Iterator[dict[str, str]]:
    """Each line by the names of its fields; what is missing is empty."""
    columns = fields.split(",")
    for line in output.splitlines():
        if line.strip():
            values = line.split("|")
            yield dict(zip(columns, values + [""] * len(columns), strict=False))


def _association(row: dict[str, str]) -> Association:
    return Association(
        account=row["Account"],
        partition=text(row["Partition"]),
        qos=names(row["QOS"]) or [],
        default_qos=text(row["DefaultQOS"]),
        max_time_min=minutes(row["MaxWall"]),
        max_jobs=whole(row["MaxJobs"]),
        max_submitted=whole(row["MaxSubmit"]),
    )


def _qos(row: dict[str, str]) -> Qos:
    nodes = re.search(r"(?:^|,)node=(\d+)", row["MaxTRES"])
    mode = row["PreemptMode"]
    return Qos(
        name=row["Name"],
        max_time_min=minutes(row["MaxWall"]),
        max_nodes=int(nodes.group(1)) if nodes else None,
        max_jobs_per_user=whole(row["MaxJobsPU"]),
        max_submitted_per_user=whole(row["MaxSubmitPU"]),
        grace_s=seconds(row["GraceTime"]) or 0,
        preempt_mode=preempt_mode(mode),  # `cluster` stands for the cluster's
        preempts=names(row["Preempt"]) or [],
        flags=[flag.lower() for flag in names(row["Flags"]) or []],
    )
