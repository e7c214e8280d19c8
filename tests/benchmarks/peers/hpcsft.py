"""hpcsft: the body of the stage `preprocess`, up to its manifest and audit, as the only task of its array.

Runs in the Python that hpcsft is installed in. Its one joint with the package is `run_stage`.
"""

from __future__ import annotations

import argparse
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

    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer, local_files_only=True)
    AutoTokenizer.from_pretrained = lambda *_, **__: tokenizer

    def load(file: Path) -> Any:
        values = {
            "name": file.name.replace(".", "-"),
            "runs_dir": str(arguments.folder / "runs"),
            "model": {"path": str(arguments.tokenizer)},
            "data": {"train": [str(file)], "max_length": arguments.max_length},
            "cluster": {"kind": "local", "preprocess": {"cpus_per_task": CORES}},
        }
        return begun(new_run(values), "preprocess")

    def count(context: Any) -> tuple[int, int]:
        manifest = read_manifest(context.run.manifest)
        splits = ("train", "validation")
        return tuple(sum(manifest.total(split, field) for split in splits) for field in ("tokens", "rows"))

    return Peer(run_stage, count, load)


def run_stage(context: Any) -> Any:
    """Run the stage body in a prepared run directory, which holds no shard yet."""
    from hpcsft.data.preprocess import preprocess

    preprocess(context)
    return context


if __name__ == "__main__":
    measure(prepare)
