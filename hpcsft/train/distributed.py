"""Ranks that find each other: environment, rendezvous and the few collectives that training needs."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from hpcsft.stage import StageContext
from hpcsft.train.exchange import Exchange
from hpcsft.train.node_check import check_all_reduce, check_nodes

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""Of the rendezvous, and of any collective."""


@dataclass(frozen=True)
class Ranks:
    """The group of training processes."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def leader(self) -> bool:
        """Is this rank 0, the one that writes?"""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all ranks, in float64."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def all_agree(self, value: bool) -> bool:
        """Is `value` true on every rank?"""
        return self.sum(0.0 if value else 1.0)[0] == 0.0

    def from_leader(self, read: Callable[[], Any]) -> Any:
        """What `read` returns on rank 0, on every rank: nodes may see a shared filesystem differently."""
        box = [read() if self.leader else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """The `value` of every rank, on every rank."""
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part of what all ranks do together."""
        return items[self.rank :: self.world_size]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        dist.barrier()


def export_environment(context: StageContext) -> None:
    """Set the variables that torch.distributed and DeepSpeed read. Call before DeepSpeed is imported."""
    task, network = context.task, context.spec.cluster.network
    port = str(rendezvous_port(f"{context.run.path}/{task.token}", *network.ports))
    os.environ["RANK"] = str(task.rank)
    os.environ["WORLD_SIZE"] = str(task.world_size)
    os.environ["LOCAL_RANK"] = str(task.local_rank)
    os.environ.setdefault("LOCAL_SIZE", os.environ.get("SLURM_NTASKS_PER_NODE", str(task.world_size)))
    os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")  # or a resumed run would not end with the same bits
    if "SUBMITIT_EXECUTOR" in os.environ:  # in a job; what a user's shell exported long ago counts only by hand
        found = os.environ.get("HPCSFT_MASTER_ADDR") if network.interface and task.token.in_slurm else None
        os.environ["MASTER_ADDR"] = found or os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
        os.environ["MASTER_PORT"] = port
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", port)


def rendezvous_port(attempt: str, first: int, last: int) -> int:
    """A port that all ranks of one attempt derive alike, and that others on the same node hardly share."""
    return first + zlib.crc32(attempt.encode()) % (last - first + 1)


def start_ranks(context: StageContext, on_gpu: bool) -> Ranks:
    """Join the group, nccl with one GPU per rank, gloo on CPUs, if all nodes are fit for use; UnfitNodes if not."""
    import deepspeed

    task = context.task
    if on_gpu:
        own = task.local_rank % max(1, torch.cuda.device_count())  # 0 where Slurm shows every task its own GPU only
        os.environ["LOCAL_RANK"] = str(own)  # by which DeepSpeed picks its device
        device = torch.device("cuda", own)
    else:
        device = torch.device("cpu")
        threads = context.stage.cpus_per_task or len(os.sched_getaffinity(0)) // context.stage.tasks_per_node
        torch.set_num_threads(max(1, threads))
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # gloo alone: no compiler on the node
    store, *_ = next(rendezvous("env://", task.rank, task.world_size, timeout=TIMEOUT))
    exchange = Exchange(dist.PrefixStore("hpcsft", store), task.rank, task.world_size)
    nodes = check_nodes(context, exchange, device)
    if on_gpu:
        torch.cuda.set_device(device)

    def connect() -> None:  # its own rendezvous is at the same store, which lives as long as this process
        backend = "nccl" if on_gpu else "gloo"
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, timeout=TIMEOUT, verbose=False)

    check_all_reduce(context, exchange, nodes, connect, device)
    return Ranks(task.rank, task.world_size, device)
