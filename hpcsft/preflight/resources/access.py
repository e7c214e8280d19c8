"""May this user submit to this partition, with this account and QOS? Pure.

Every error here can be overruled: what an administrator has granted may not show in what a user is told. What Slurm
surely refuses, its own trial says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hpcsft.plan import StagePlan
from hpcsft.preflight.fields import field_of
from hpcsft.preflight.finding import Finding
from hpcsft.preflight.nearest import instead, listed
from hpcsft.site.access import closed_because
from hpcsft.site.records import Accounts, Association, Partition, Qos, Site
from hpcsft.spec import ExperimentSpec

IMPLIED_BY = {
    "associations": {"associations", "limits", "qos", "safe", "wckeys", "all"},
    "limits": {"limits", "safe", "all"},
    "qos": {"qos", "all"},
}
"""Words of AccountingStorageEnforce that switch each of these on."""


def enforces(accounts: Accounts | None, what: str) -> bool:
    """Does the cluster hold jobs to its associations, limits or qos?"""
    return accounts is not None and bool(IMPLIED_BY[what] & set(accounts.enforced))


def association_of(stage: StagePlan, partition: Partition, accounts: Accounts | None) -> Association | None:
    """The association that a stage is charged to in a partition, as Slurm chooses it: that of the partition first."""
    if accounts is None:
        return None
    account = (stage.account or accounts.default_account or "").lower()
    fitting = [
        a for a in accounts.associations if a.account.lower() == account and a.partition in (None, partition.name)
    ]
    return max(fitting, key=lambda found: found.partition is not None, default=None)


def qos_named(accounts: Accounts | None, name: str | None) -> Qos | None:
    """The QOS called `name`; None if there is none, or nobody tells."""
    return next((qos for qos in (accounts.qos if accounts else ()) if name and qos.name.lower() == name.lower()), None)


def qos_name(stage: StagePlan, association: Association | None) -> str | None:
    """The QOS that a stage runs with: its own or the association's default."""
    return stage.qos or (association.default_qos if association else None)


def is_open(site: Site, partition: Partition) -> bool:
    """Does a partition start jobs now, and may this user submit to it?"""
    return partition.state == "UP" and closed_because(site, partition) is None


def access_findings(
    spec: ExperimentSpec, stage: StagePlan, partition: Partition, site: Site, accepted: bool = False
) -> list[Finding]:
    """What keeps a job of this stage out of this partition; of what Slurm has `accepted`, what it does not look at."""
    where = field_of(spec, stage.name, "partition")
    return [
        *(f for f in _partition_state(where, partition, site) if not (accepted and f.level == "error")),
        *([] if accepted else _partition_users(where, partition, site)),
        *([] if accepted and site.enforces_limits_at_once else _policies(spec, stage, partition, site, accepted)),
    ]


def _policies(
    spec: ExperimentSpec, stage: StagePlan, partition: Partition, site: Site, accepted: bool
) -> Iterator[Finding]:
    unknown = association_of(stage, partition, site.accounts) is None
    if accepted and unknown and enforces(site.accounts, "associations"):  # it has one that we are not told of
        return
    yield from _account(spec, stage, partition, site, accepted)
    yield from _qos(spec, stage, partition, site, accepted)


def _partition_state(where: str, partition: Partition, site: Site) -> Iterator[Finding]:
    hint = _open_ones(site)
    if partition.state == "DOWN":
        message = f"partition {partition.name} is DOWN: it takes jobs and starts none until it is up again"
        yield Finding(level="warning", where=where, message=message, hint=hint)
    elif partition.state != "UP":
        message = f"partition {partition.name} takes no jobs now: it is in state {partition.state}"
        yield Finding(level="error", where=where, message=message, hint=hint, forcible=True)


def _partition_users(where: str, partition: Partition, site: Site) -> Iterator[Finding]:
    if partition.root_only and site.user != "root":
        message = f"partition {partition.name} takes jobs of root only"
        yield Finding(level="error", where=where, message=message, hint=_open_ones(site), forcible=True)
    allowed = partition.allow_groups
    if allowed is not None and site.groups and site.user != "root" and not _lower(allowed) & _lower(site.groups):
        message = (
            f"partition {partition.name} is for the groups {listed(allowed)}, "
            f"and {site.user} is in {listed(site.groups)}"
        )
        yield Finding(level="error", where=where, message=message, hint=_open_ones(site), forcible=True)


def _open_ones(site: Site) -> str:
    names = [p.name for p in site.partitions if is_open(site, p)]
    return f"partitions open to {site.user}: {listed(names)}" if names else "ask the administrators for access"


def _account(
    spec: ExperimentSpec, stage: StagePlan, partition: Partition, site: Site, accepted: bool
) -> Iterator[Finding]:
    where, accounts = field_of(spec, stage.name, "account"), site.accounts
    own = association_of(stage, partition, accounts)
    if enforces(accounts, "associations") and own is None:
        assert accounts
        yield _no_association(where, stage, partition, site.user, accounts)
        return
    account = own.account if own else stage.account or (accounts.default_account if accounts else None)
    associations = accounts.associations if accounts else []
    usable = [a.account for a in associations if a.partition in (None, partition.name)]
    if partition.allow_accounts is not None and (account or "").lower() not in _lower(partition.allow_accounts):
        charged = f"account {account}" if account else "a job without an account"
        may = [name for name in usable if name.lower() in _lower(partition.allow_accounts)]
        message = (
            f"partition {partition.name} is for the accounts {listed(partition.allow_accounts)}, not for {charged}"
        )
        hint = f"{where}={may[0]}" if may else "take another partition, or ask the administrators for such an account"
        if accepted and _has_subaccounts(site):
            message += ": a job would wait for ever, unless it is a subaccount of these"
            yield Finding(level="warning", where=where, message=message, hint=hint)
        else:
            yield Finding(level="error", where=where, message=message, hint=hint, forcible=True)
    elif account and account.lower() in _lower(partition.deny_accounts):
        message = f"partition {partition.name} is closed to account {account}"
        other = [name for name in usable if name.lower() not in _lower(partition.deny_accounts)]
        hint = f"{where}={other[0]}, or another partition" if other else "take another partition"
        yield Finding(level="error", where=where, message=message, hint=hint, forcible=True)


def _has_subaccounts(site: Site) -> bool:
    """May AllowAccounts hold for subaccounts too, as in newer versions of Slurm? A user is not told whose they are."""
    year = site.version.partition(".")[0]
    return not year.isdecimal() or int(year) >= 23


def _no_association(where: str, stage: StagePlan, partition: Partition, user: str, accounts: Accounts) -> Finding:
    here = [a.account for a in accounts.associations if a.partition in (None, partition.name)]
    elsewhere = [a.partition or "" for a in accounts.associations if a.account == stage.account]
    if not accounts.associations:
        message, hint = f"{user} has no account on this cluster, and a job needs one", "ask the administrators for one"
    elif stage.account is None:
        message = f"no account is given, and {user} has no default account that may be charged in {partition.name}"
        hint = f"{where}=NAME; {user} has {listed(sorted(set(here))) or 'none that is for this partition'}"
    elif elsewhere:
        message = f"account {stage.account} may be charged in {listed(elsewhere)} only, not in {partition.name}"
        hint = instead(stage.account, here, f"accounts for {partition.name} are")
    else:
        message = f"{user} may not charge account {stage.account}: there is no such association"
        hint = instead(stage.account, here, f"accounts of {user} here are")
    return Finding(level="error", where=where, message=message, hint=hint, forcible=True)


def _qos(spec: ExperimentSpec, stage: StagePlan, partition: Partition, site: Site, accepted: bool) -> Iterator[Finding]:
    where, accounts = field_of(spec, stage.name, "qos"), site.accounts
    if not enforces(accounts, "qos"):
        return
    assert accounts
    own = association_of(stage, partition, accounts)
    name = qos_name(stage, own)
    if not accepted and stage.qos and accounts.qos and qos_named(accounts, stage.qos) is None:
        hint = instead(stage.qos, own.qos if own else [qos.name for qos in accounts.qos])
        yield Finding(level="error", where=where, message=f"no QOS '{stage.qos}' here", hint=hint, forcible=True)
        return
    if not accepted and stage.qos and own and own.qos and stage.qos.lower() not in _lower(own.qos):
        message = f"account {own.account} may not use QOS {stage.qos}"
        hint = f"it may use {listed(own.qos)}"
        yield Finding(level="error", where=where, message=message, hint=hint, forcible=True)
        return
    if name and partition.allow_qos is not None and name.lower() not in _lower(partition.allow_qos):
        message = f"partition {partition.name} is for the QOS {listed(partition.allow_qos)}, not for {name}"
        may = [q for q in (own.qos if own else []) if q.lower() in _lower(partition.allow_qos)]
        hint = f"{where}={may[0]}" if may else "take another partition"
        yield Finding(level="error", where=where, message=message, hint=hint, forcible=True)
    elif name and name.lower() in _lower(partition.deny_qos):
        message = f"partition {partition.name} is closed to QOS {name}"
        yield Finding(level="error", where=where, message=message, hint="take another QOS or partition", forcible=True)


def _lower(names: Iterable[str]) -> set[str]:
    return {name.lower() for name in names}
