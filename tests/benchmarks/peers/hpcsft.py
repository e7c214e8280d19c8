"""hpcsft: the body of the stage `preprocess`, up to its manifest and audit, as an array of one task or of several.

Runs in the Python that hpcsft is installed in. Its one joint with the package is `run_stage`. Tasks of an array are
forked, as the peers fork their workers, and tokenize with one thread each.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.timing import Peer, measure

CORES = 2


def prepare(arguments: argparse.Namespace) -> Peer:
    """Load the tokenizer once and for all: every later load in this process gets the same one."""
    import pyarrow.ipc  # noqa: F401
    from transformers import AutoTokenizer

    import hpcsft.data.preprocess  # noqa: F401
    from hpcsft.data.shards import read_manifest
    from tests.prepared import begun, new_run

    if arguments.num_proc > 1:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer, local_files_only=True)
    AutoTokenizer.from_pretrained = lambda *_, **__: tokenizer

    def load(file: Path) -> list[Any]:
        tasks = 1 if file == arguments.warm_up else arguments.num_proc  # the warm-up is for this process
        values = {
            "name": file.name.replace(".", "-"),
            "runs_dir": str(arguments.folder / "runs"),
            "model": {"path": str(arguments.tokenizer)},
            "data": {"train": [str(file)], "max_length": arguments.max_length},
            "cluster": {"kind": "local", "preprocess": {"tasks": tasks, "cpus_per_task": CORES // tasks}},
        }
        run = new_run(values)
        return [begun(run, "preprocess", index) for index in range(tasks)]

    def count(contexts: list[Any]) -> tuple[int, int]:
        manifest = read_manifest(contexts[0].run.manifest)
        splits = ("train", "validation")
        return tuple(sum(manifest.total(split, field) for split in splits) for field in ("tokens", "rows"))

    return Peer(run_stage, count, load)


def run_stage(contexts: list[Any]) -> list[Any]:
    """Run the stage body in a prepared run directory, which holds no shard yet."""
    from hpcsft.data.preprocess import finish, preprocess

    children = []
    for context in contexts if len(contexts) > 1 else []:
        child = os.fork()
        if not child:
            try:
                preprocess(context)
            finally:
                os._exit(0)  # a task that failed leaves no manifest, which is then missed
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    if children:
        finish(contexts[0])  # as training does, for tasks that end together
    else:
        preprocess(contexts[0])
    return contexts


if __name__ == "__main__":
    measure(prepare)
