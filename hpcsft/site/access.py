"""Which partitions are closed to this user, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from hpcsft.site.records import Partition, Site


def closed_because(site: Site, partition: Partition) -> str | None:
    """Why this user cannot run anything in the partition now; None if nothing is known to stand against it."""
    if partition.state not in ("UP", "DOWN"):
        return f"it is in state {partition.state}"
    if site.user != "root":  # whom Slurm lets into every partition
        if partition.root_only:
            return "for root only"
        if partition.allow_groups is not None and not _lower(partition.allow_groups) & _lower(site.groups):
            return f"for the groups {', '.join(partition.allow_groups)}"
    return _accounts(site, partition)


def _accounts(site: Site, partition: Partition) -> str | None:
    if site.accounts is None:
        return None
    own = [found for found in site.accounts.associations if found.partition in (None, partition.name)]
    if not own and "associations" in site.accounts.enforced:
        return "none of your accounts is for it"
    accounts = _lower(found.account for found in own)
    if own and partition.allow_accounts is not None and not accounts & _lower(partition.allow_accounts):
        return f"for the accounts {', '.join(partition.allow_accounts)}"
    if own and not accounts - _lower(partition.deny_accounts):
        return "closed to your accounts"
    qos = _lower(name for found in own for name in found.qos)
    if qos and partition.allow_qos is not None and not qos & _lower(partition.allow_qos):
        return f"for the QOS {', '.join(partition.allow_qos)}"
    return None


def _lower(names: Iterable[str]) -> set[str]:
    """Slurm's database does not tell Physics from physics, nor do the directories of groups of many sites."""
    return {name.lower() for name in names}
