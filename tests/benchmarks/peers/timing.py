"""The clock and the command line that all of them share. Standard library only: it runs in the peers' Pythons."""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Peer(NamedTuple):
    """How one project preprocesses a file."""

    work: Callable[[Any], Any]
    """What the clock measures: a file, or what `load` made of it -> rows in the project's own form."""
    count: Callable[[Any], tuple[int, int]]
    """What `work` returned -> tokens in its rows, number of rows. Not measured."""
    load: Callable[[Path], Any] = lambda file: file
    """Not measured."""


def measure(prepare: Callable[[argparse.Namespace], Peer]) -> None:
    """Prepare, warm up, run `work` once, print the JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--folder", type=Path, required=True, help="empty; rows and caches go there")
    parser.add_argument("--warm-up", type=Path, help="small file of the same kind to run on first")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--num-proc", type=int, default=1)
    parser.add_argument("--packing", action="store_true")
    parser.add_argument("--splitter", action="store_true")
    parser.add_argument("--idle", action="store_true", help="only prepare, then wait until standard input closes")
    arguments = parser.parse_args()
    os.environ["HF_DATASETS_CACHE"] = str(arguments.folder / "cache")  # nothing is there of a run before
    peer = prepare(arguments)
    if arguments.idle:
        print("ready", flush=True)
        input()
        return
    if arguments.warm_up:
        peer.work(peer.load(arguments.warm_up))
    loaded = peer.load(arguments.file)
    started_s, cpu_before_s = time.perf_counter(), cpu_seconds()
    made = peer.work(loaded)
    measured = {"seconds": time.perf_counter() - started_s, "cpu_seconds": cpu_seconds() - cpu_before_s}
    tokens, rows = peer.count(made)
    print("\n" + json.dumps({**measured, "tokens": tokens, "rows": rows}), flush=True)


def cpu_seconds() -> float:
    """What this process and those of its children that have ended used of all cores."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
