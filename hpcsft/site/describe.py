"""A cluster for a terminal or a pipe, from 60 columns on. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from hpcsft.site.access import closed_because
from hpcsft.site.preemption import Preemption
from hpcsft.site.promises import Promise, grouped
from hpcsft.site.records import Accounts, NodeKind, Partition, Qos, Site
from hpcsft.slurm_client import duration_text

QUIET = "dim"
WIDEST = 120
"""Columns; longer lines are hard to read."""
MB_OF_GB = 1024
"""As cluster.mem_gb counts, and Slurm."""


def print_site(site: Site | None, promises: Sequence[Promise], console: Console) -> None:
    """Print the cluster and what hpcsft can promise there; None: there is no Slurm."""
    parts = _cluster(site) if site else [Text("No Slurm here: sbatch and srun are not on the PATH of this machine.")]
    title = "What hpcsft can promise here" if site else "What works without it (cluster.kind local)"
    for part in [*parts, _title(title), _sentences(promises)]:
        console.print(part, markup=False, highlight=False, emoji=False, width=min(console.width, WIDEST))


def _cluster(site: Site) -> Iterator[RenderableType]:
    yield Text.assemble(("Slurm ", "bold"), (site.version, "bold"), f"  cluster {site.name}, user {site.user}")
    yield _title("Partitions")
    yield _partitions(site.partitions)
    yield Text("* the default; nodes: usable of all; memory as cluster.mem_gb counts it", QUIET)
    for partition in site.partitions:
        if because := closed_because(site, partition):
            yield Text(f"{partition.name} is closed to you: {because}", "yellow")
    yield _title("Accounts")
    yield _grid(_accounts(site))
    yield _title("Preemption and requeue")
    yield _grid(_preemption(site))


def _title(text: str) -> Text:
    return Text.assemble("\n", (text, "bold"))


def _partitions(partitions: Sequence[Partition]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=QUIET, pad_edge=False)
    table.add_column("partition", overflow="fold")
    for name in ("state", "limit", "nodes"):
        table.add_column(name, no_wrap=True, justify="right" if name == "nodes" else "left")
    table.add_column("each node", overflow="fold")
    for partition in partitions:
        limit = _limit(partition.max_time_min)
        first = (f"{partition.name}{'*' if partition.default else ''}", partition.state.lower(), limit)
        for number, kind in enumerate(partition.nodes):
            table.add_row(*(first if number == 0 else ("", "", "")), f"{kind.usable}/{kind.count}", _node(kind))
        if not partition.nodes:
            table.add_row(*first, "0", "")
    return table


def _limit(max_time_min: float | None) -> str:
    return "none" if max_time_min is None else duration_text(round(60 * max_time_min))


def _node(kind: NodeKind) -> str:
    """Such as `64 CPUs, 500 GB, 4 GPUs (a100)`."""
    gpus = f", {_number(kind.gpus, 'GPU')}{f' ({kind.gpu_type})' if kind.gpu_type else ''}" if kind.gpus else ""
    return f"{_number(kind.cpus, 'CPU')}, {kind.memory_mb / MB_OF_GB:,.0f} GB{gpus}"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _grid(lines: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style=QUIET, overflow="fold", max_width=34)
    table.add_column(overflow="fold", ratio=1)
    for name, value in lines:
        table.add_row(name, value)
    return table


def _accounts(site: Site) -> Iterator[tuple[str, str]]:
    accounts = site.accounts
    if accounts is None:
        yield "accounts", site.accounts_problem or "they do not answer"
        return
    yield "enforced", ", ".join(accounts.enforced) or "nothing: a job needs no account"
    for own in accounts.associations:
        words = [f"only in {own.partition}"] if own.partition else []
        words += [f"QOS {', '.join(own.qos)}"] if own.qos else []
        words += _limits(own.max_time_min, None, own.max_jobs, own.max_submitted)
        yield f"{own.account}{' (default)' if own.account == accounts.default_account else ''}", "; ".join(words) or "-"
    if not accounts.associations:
        yield site.user, "no account: ask the administrators, if one is needed"
    yield from _qualities(accounts, site.preempt_type == "qos")


def _qualities(accounts: Accounts, preempt: bool) -> Iterator[tuple[str, str]]:
    """Those of this user's accounts that limit anything; `preempt`: they decide on preemptions."""
    usable = {name for own in accounts.associations for name in own.qos}
    for qos in accounts.qos:
        if qos.name in usable and (limits := _qos_limits(qos, preempt)):
            yield f"QOS {qos.name}", "; ".join(limits)


def _qos_limits(qos: Qos, preempt: bool) -> list[str]:
    limits = _limits(qos.max_time_min, qos.max_nodes, qos.max_jobs_per_user, qos.max_submitted_per_user)
    return limits + ([f"{qos.grace_s} s of grace when it is preempted"] if preempt and qos.grace_s else [])


def _limits(time_min: float | None, nodes: int | None, jobs: int | None, submitted: int | None) -> list[str]:
    return [
        *([f"up to {_limit(time_min)}"] if time_min is not None else []),
        *([f"{_number(nodes, 'node')} a job"] if nodes is not None else []),
        *([f"{_number(jobs, 'job')} at once"] if jobs is not None else []),
        *([f"{_number(submitted, 'job')} in the queue"] if submitted is not None else []),
    ]


def _preemption(site: Site) -> Iterator[tuple[str, str]]:
    if site.preempt_type is None or site.preempt_mode == "OFF":
        yield "preemption", "none: a job that runs is left alone"
    else:
        by = {"partition_prio": "the partition's priority tier", "qos": "the job's QOS"}.get(site.preempt_type)
        yield "decided by", f"{by or site.preempt_type} (PreemptType {site.preempt_type})"
        for found, names in grouped(site).items():
            yield ", ".join(names), _preempted(found)
        if site.preempt_exempt_s:
            yield "exempt", f"a job that has run for less than {duration_text(site.preempt_exempt_s)}"
        yield "signal", "SIGUSR2, which the jobs ask for" if site.sends_user_signal else "SIGTERM"
    yield "time limit", f"{site.kill_wait_s} s from SIGTERM to the kill (KillWait); jobs ask for SIGUSR2 well before"
    asked = "" if site.requeue else "; by default they do not (JobRequeue=0), those of hpcsft ask for it"
    yield "requeue", f"jobs go back into the queue after a preemption or a node failure{asked}"


def _preempted(found: Preemption | None) -> str:
    if found is None:
        return "not preempted"
    done = {"REQUEUE": "requeued", "CANCEL": "cancelled", "SUSPEND": "suspended"}[found.mode]
    if found.mode == "SUSPEND":
        return "suspended, and resumed when the other job has ended"
    grace = f"{found.grace_s} s of grace" if found.grace_s else "no grace time"
    return f"{done}, with {grace}; {found.kill_wait_s} s from SIGTERM to the kill"


def _sentences(promises: Sequence[Promise]) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    for promise in promises:
        table.add_row(Text("+", "green") if promise.holds else Text("!", "bold yellow"), promise.text)
    return table
