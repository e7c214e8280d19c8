"""The spine for run after run: preprocess, train on two ranks, generate. One process imports, the rest is forked.

    python -m tests.architectures.spine RUN_DIR ...

To import everything takes longer than what a tiny model needs for all of it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import sys

from hpcsft.stage import run_stage

RANKS = 2
STAGE_S = 120


def work(stage: str, run: str, environment: dict[str, str]) -> None:
    """One rank of a stage, as its job would be."""
    os.environ |= environment
    job = importlib.import_module(f"jobs.{stage}")
    run_stage(stage, job.body, [run])


def stage(name: str, run: str, world_size: int) -> bool:
    """Run a stage on so many ranks; did all of them end well?"""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ranks = []
    for rank in range(world_size):
        task = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
        rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks.append(multiprocessing.get_context("fork").Process(target=work, args=(name, run, task | rendezvous)))
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(STAGE_S)
    late = [process for process in ranks if process.exitcode is None]
    for process in late:
        process.kill()
    return not late and all(process.exitcode == 0 for process in ranks)


def main(runs: list[str]) -> int:
    """Every run as far as it gets; the number of runs that did not get to the end."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed  # noqa: F401 (before the fork)
    import torch
    from transformers import LlamaForCausalLM  # noqa: F401

    torch.set_num_threads(1)
    stages = {"preprocess": 1, "train": RANKS, "generate": 1}
    return sum(not all(stage(name, run, size) for name, size in stages.items()) for run in runs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
