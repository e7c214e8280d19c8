"""Which nodes the next attempt of a job does without: those that were found unfit for use."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from hpcsft import slurm_client
from hpcsft.attempt.fence import Token
from hpcsft.attempt.journal import Journal
from hpcsft.errors import ClusterError


class Exclusion(NamedTuple):
    """What is to be done about unfit nodes."""

    nodes: tuple[str, ...] = ()
    """All nodes that the job excludes from now on, its own choice included; none: nothing has to change."""
    impossible: str | None = None
    """Why there would be too few nodes left."""


def choose_exclusion(
    unfit: Sequence[str], excluded: Sequence[str], partition_nodes: Sequence[str], partition: str, num_nodes: int
) -> Exclusion:
    """Exclude `unfit` besides what the job excludes, if `num_nodes` of `partition_nodes` are left. Pure.

    Nodes that are down count as left: the job waits for them as any other does. Those that the job's constraint does
    not allow are none of `partition_nodes`: it would wait for ever.
    """
    nodes = tuple(dict.fromkeys([*excluded, *unfit]))
    left = [name for name in partition_nodes if name not in nodes]
    if len(nodes) == len(set(excluded)):
        return Exclusion()
    if len(left) < num_nodes:
        without = (
            f"without {', '.join(nodes)} the partition {partition} has {len(left)} of {len(partition_nodes)} nodes"
        )
        return Exclusion(impossible=f"{without} left, and the job needs {num_nodes}")
    return Exclusion(nodes)


def plan_exclusion(token: Token, unfit: Sequence[str]) -> Exclusion:
    """The exclusion for the job of `token`; nothing where Slurm does not answer, and then the job goes on with all."""
    if not unfit:
        return Exclusion()
    try:
        facts = slurm_client.query_job(token.job_id)
        if facts is None:
            return Exclusion()
        excluded = slurm_client.host_names(facts.excluded)
        nodes = slurm_client.partition_nodes(facts.partition, facts.constraint)
    except ClusterError as error:
        print(f"hpcsft: nobody can be asked which nodes to exclude: {error.message}", flush=True)
        return Exclusion()
    return choose_exclusion(unfit, excluded, nodes, facts.partition, facts.num_nodes)


def exclude(token: Token, exclusion: Exclusion, journal: Journal) -> None:
    """Tell Slurm, once the job is back in the queue, and write down whether it did that."""
    if not exclusion.nodes:
        return
    refused = None
    try:
        slurm_client.exclude_nodes(token.job_id, exclusion.nodes)
    except ClusterError as error:  # the next attempt may find better nodes all the same
        refused = error.message
        print(f"hpcsft: Slurm did not exclude {', '.join(exclusion.nodes)}: {refused}", flush=True)
    with contextlib.suppress(OSError):  # a full disk
        journal.write("excluded", nodes=list(exclusion.nodes), refused=refused)
