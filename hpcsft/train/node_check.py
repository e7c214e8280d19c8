"""Whether the nodes of an allocation are fit for use, which all ranks learn before training begins.

Ranks tell each other through the rendezvous store, for a broken GPU cannot take part in a collective. Rank 0 collects
what they found and publishes what follows from it; so each rank talks to the store a few times, however many there are.
"""

from __future__ import annotations

import contextlib
import errno
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist

from hpcsft.attempt.causes import UnfitNodes
from hpcsft.errors import StageError
from hpcsft.stage import StageContext
from hpcsft.train.exchange import Exchange
from hpcsft.train.node_report import NodeReport, look_at_node, node_name

REPORT_LIMIT_S = 180.0
"""From the rendezvous to the last report: a driver may take a minute to wake its GPUs."""
CLOCK_LIMIT_S = 30.0
"""For the answers about the clocks, which cost nothing."""
ALL_REDUCE_LIMIT_S = 300.0
"""For the first collective, which connects all ranks: minutes where there are thousands."""
LINGER_S = 10.0
"""How long rank 0, whose process holds the store, waits for the others to have read why it ends."""
MOST_TOLD = 3
"""So many nodes are named with their reasons in a message."""
CLOCK_WARNING_S, CLOCK_ERROR_S = 5.0, 300.0
"""How far a clock may be from the others. Munge takes no credential that is older than 300 s; Slurm lives by them."""


class Findings(NamedTuple):
    """What follows from all that the ranks have told."""

    unfit: dict[str, str] = {}
    """The reason by node."""
    shared: str | None = None
    """What is wrong and is hardly the fault of a node."""
    apart: str | None = None
    """That the ranks do not reach each other, one of which may have gone."""
    environment: str | None = None
    """What the user's own environment lacks."""
    disk_full: str | None = None
    """That the shared filesystem has no room."""
    warnings: tuple[str, ...] = ()


def judge_reports(
    nodes: Mapping[int, str | None], reports: Sequence[NodeReport], ahead_s: Mapping[str, float]
) -> Findings:
    """What follows from the reports. Pure.

    `nodes` has the node of every rank, None where it did not even tell that; `ahead_s` by how much a node's clock is
    ahead of that of rank 0's node.
    """
    if mute := [rank for rank, node in nodes.items() if node is None]:
        return Findings(shared=f"rank {mute[0]} came to the rendezvous and then said nothing more")
    unfit: dict[str, str] = {}
    for report in reports:
        for problem in report.problems:
            unfit.setdefault(report.node, problem)
    for rank in sorted(set(nodes) - {report.rank for report in reports}):
        unfit.setdefault(nodes[rank], f"rank {rank} had nothing to report after {REPORT_LIMIT_S:.0f} s")
    server_s = next((report.server_ahead_s for report in reports if report.rank == 0), None)
    wrong, warnings = judge_clocks(ahead_s, server_s)
    full = next((report.disk_full for report in reports if report.disk_full), None)
    lacks = next((report.environment for report in reports if report.environment), None)
    found = _blame({**wrong, **unfit}, set(nodes.values()))
    return found._replace(environment=lacks, disk_full=full, warnings=tuple(warnings))


def judge_clocks(ahead_s: Mapping[str, float], server_s: float | None) -> tuple[dict[str, str], list[str]]:
    """Nodes whose clock is too far from that of most, and warnings. Pure.

    The file server's clock, `server_s` ahead of rank 0's node, has a say in which of two nodes is wrong; it may be
    wrong itself.
    """
    clocks = {**ahead_s, **({"the file server": server_s} if server_s is not None else {})}
    middle_s = statistics.median_low((clocks if len(ahead_s) > 1 else ahead_s).values()) if ahead_s else 0.0
    unfit, warnings = {}, []
    for name, seconds in clocks.items():
        away_s = seconds - middle_s
        told = f"its clock is {abs(away_s):.0f} s {'ahead of' if away_s > 0 else 'behind'} the others'"
        if abs(away_s) > CLOCK_ERROR_S and name in ahead_s:
            unfit[name] = told
        elif abs(away_s) > CLOCK_WARNING_S:
            warnings.append(f"{name}: {told}")
    return unfit, warnings


def judge_all_reduce(nodes: Mapping[int, str], problems: Mapping[int, str | None]) -> Findings:
    """What follows from the first all-reduce: `problems` has what each rank says of it that said anything. Pure.

    Where it fails nobody can tell whose fault it is, unless few nodes are silent.
    """
    mute = [rank for rank in nodes if rank not in problems]
    silent = {nodes[rank]: f"rank {rank} never came back from the first all-reduce" for rank in mute}
    if 0 < 2 * len(silent) < len(set(nodes.values())):
        return Findings(unfit=silent)
    failed = next((f"rank {rank}: {problem}" for rank, problem in problems.items() if problem), None)
    if not failed and silent:
        failed = next(iter(silent.values()))
    return Findings(apart=failed and f"the first all-reduce failed: {failed}")


def _blame(unfit: dict[str, str], nodes: set[str]) -> Findings:
    """What is wrong with every one of several nodes is hardly their fault."""
    if len(nodes) > 1 and nodes <= set(unfit):
        return Findings(shared=f"every node of the job: {_told(unfit)}")
    return Findings(unfit=unfit)


def _told(unfit: Mapping[str, str]) -> str:
    more = len(unfit) - MOST_TOLD
    parts = [f"{node}: {reason}" for node, reason in list(unfit.items())[:MOST_TOLD]]
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def check_nodes(context: StageContext, exchange: Exchange, device: torch.device) -> dict[int, str]:
    """Look at every node. Returns the node of each rank, on rank 0 only. All ranks raise alike if something is wrong.

    UnfitNodes names nodes that should be excluded, or none where it is what they share. StageError: the environment is
    at fault. OSError: the disk is full.
    """
    exchange.tell("node", node_name())
    exchange.tell("report", look_at_node(context, device).model_dump())
    nodes: dict[int, str] = {}
    if exchange.leader:
        known = exchange.collect("node", REPORT_LIMIT_S)
        nodes = {rank: known.get(rank) for rank in range(exchange.world_size)}
        reports = [NodeReport(**report) for report in exchange.collect("report", REPORT_LIMIT_S).values()]
        exchange.publish("time", time.time())
    exchange.tell("ahead_s", time.time() - exchange.hear("time", 2 * REPORT_LIMIT_S + CLOCK_LIMIT_S))
    findings = Findings()
    if exchange.leader:
        ahead_s: dict[str, float] = {}
        for rank, seconds in exchange.collect("ahead_s", CLOCK_LIMIT_S).items():
            if abs(seconds) < abs(ahead_s.get(nodes[rank], float("inf"))):  # the others answered late
                ahead_s[nodes[rank]] = seconds
        findings = judge_reports(nodes, reports, ahead_s)
        for warning in findings.warnings:
            context.say(f"warning: {warning}")
    _settle("findings", findings, exchange, context, CLOCK_LIMIT_S)
    return nodes


def check_all_reduce(
    context: StageContext,
    exchange: Exchange,
    nodes: Mapping[int, str],
    connect: Callable[[], None],
    device: torch.device,
) -> None:
    """`connect` the ranks and sum a number over them. All ranks raise alike if it comes out wrong, or does not.

    UnfitNodes if few nodes are silent, else DistBackendError: a rank may have gone.

    It runs in a thread that can be left behind: neither NCCL nor gloo comes back by itself from a link that is dead.
    """
    told: list[str | None] = []

    def sum_up() -> None:
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device)  # of this thread
            connect()
            number = torch.tensor(exchange.rank + 1.0, dtype=torch.float64, device=device)
            dist.all_reduce(number)
            right = exchange.world_size * (exchange.world_size + 1) / 2
            told.append(None if number.item() == right else f"the sum is {number.item():g} and not {right:g}")
        except Exception as error:
            told.append(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")

    thread = threading.Thread(target=sum_up, daemon=True)
    thread.start()
    thread.join(ALL_REDUCE_LIMIT_S)
    exchange.tell("sum", told[0] if told else f"no answer within {ALL_REDUCE_LIMIT_S:.0f} s")
    findings = Findings()
    if exchange.leader:
        findings = judge_all_reduce(nodes, exchange.collect("sum", ALL_REDUCE_LIMIT_S))
    _settle("sums", findings, exchange, context, 2 * ALL_REDUCE_LIMIT_S)


def _settle(key: str, findings: Findings, exchange: Exchange, context: StageContext, limit_s: float) -> None:
    """Publish rank 0's findings; raise on all ranks what follows from them."""
    if exchange.leader:
        if (findings.unfit or findings.shared) and not findings.environment:
            with contextlib.suppress(OSError):  # all ranks wait for what comes next
                context.journal.write("unfit", nodes=findings.unfit)
        exchange.publish(key, findings)
    unfit, shared, apart, environment, disk_full, _ = exchange.hear(key, limit_s + CLOCK_LIMIT_S)
    if not (unfit or shared or apart or environment or disk_full):
        return
    exchange.tell("left", True)
    if exchange.leader:
        exchange.collect("left", LINGER_S)
    if environment:
        raise StageError(environment, "no node would do: look at the jobs' environment and at cluster.env.TMPDIR")
    if disk_full:
        raise OSError(errno.ENOSPC, disk_full)
    if apart:
        raise dist.DistBackendError(apart)
    raise UnfitNodes(_told(unfit) or shared, list(unfit))
