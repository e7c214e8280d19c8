"""How full micro batches are and what planning them costs: one flat row of documents, rows of max_length, padded pairs.

    python -m tests.benchmarks.packing [RUN_DIR/data] [--rows 1500000] [--max-length 1024] [--micro-batch-size 2]

Without a folder of prepared data the lengths are drawn: mostly long rows, as splitting conversations of 1,450 tokens at
turn boundaries leaves them, and one in five short. Nothing depends on the tokens themselves.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hpcsft.data.order import TrainingOrder
from hpcsft.data.packing import pack

SHORT_SHARE = 0.2
SHORT = (5.5, 0.8)
LONG = (6.7, 0.25)
"""Logarithms of the lengths of both kinds: mean and deviation. What is left after the split is short, the rest long."""


def main() -> int:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="folder with a manifest.json")
    parser.add_argument("--rows", type=int, default=1_500_000, help="rows to plan (those of the data, repeated)")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--micro-batch-size", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.data and not (arguments.data / "manifest.json").exists():
        print(f"error: no prepared data in {arguments.data}", file=sys.stderr)
        print("hint: the folder is RUN_DIR/data of a run whose stage preprocess has ended", file=sys.stderr)
        return 2
    size, max_length = arguments.micro_batch_size, arguments.max_length
    if arguments.data:
        lengths = prepared_lengths(arguments.data)
        max_length = max(max_length, int(lengths.max()))
    else:
        lengths = drawn_lengths(arguments.rows, max_length, arguments.seed)
    print_fill(lengths, size, max_length)
    many = np.resize(lengths, arguments.rows)
    print_cost(many, size, max_length, arguments.repeats)
    return 0


def prepared_lengths(folder: Path) -> np.ndarray:
    """Lengths of the training rows in `folder`, in file order."""
    from hpcsft.data.batches import RowStore
    from hpcsft.data.shards import read_manifest

    return RowStore(folder, read_manifest(folder / "manifest.json"), "train").lengths


def drawn_lengths(rows: int, max_length: int, seed: int) -> np.ndarray:
    """Lengths like those of prepared chat data; a conversation that is still too long fills its row."""
    generator = np.random.default_rng(seed)
    short = generator.random(rows) < SHORT_SHARE
    logarithms = np.where(short, generator.normal(*SHORT, rows), generator.normal(*LONG, rows))
    return np.clip(np.exp(logarithms) * max_length / 1024, 2, max_length).astype(np.int32)


def padded_fill(lengths: np.ndarray, size: int) -> float:
    """Share of real tokens when rows in file order are padded to the longest of their micro batch."""
    whole = lengths[: len(lengths) // size * size].reshape(-1, size)
    return int(whole.sum(dtype=np.int64)) / (int(whole.max(axis=1).sum(dtype=np.int64)) * size)


def print_fill(lengths: np.ndarray, size: int, max_length: int) -> None:
    """Share of real tokens in each of the three ways."""
    from rich.console import Console
    from rich.table import Table

    def fill(capacity: int) -> float:
        return int(lengths.sum(dtype=np.int64)) / (pack(lengths, capacity).num_batches * capacity)

    fills = {
        f"documents in one flat row of {size} x {max_length}": fill(size * max_length),
        f"documents in rows of {max_length} (TRL, LLaMA-Factory)": fill(max_length),
        f"rows padded to the longest of {size}, in file order": padded_fill(lengths, size),
    }
    best = max(fills.values())
    table = Table("", "real tokens", "of the best", title=f"{len(lengths)} rows of {lengths.mean():.0f} tokens")
    for name, share in fills.items():
        table.add_row(name, f"{share:.2%}", f"{share / best:.1%}")
    Console(width=120).print(table)


def print_cost(lengths: np.ndarray, size: int, max_length: int, repeats: int) -> None:
    """Time and memory of planning all epochs, of shuffling one of them, and of finding a step in it."""
    from rich.console import Console
    from rich.table import Table

    order = TrainingOrder(lengths, size, max_length, True, per_step=32, seed=0)
    epochs = iter(range(1, 10_000))
    parts: dict[str, Callable[[], object]] = {
        "pack": lambda: pack(lengths, size * max_length),
        "go to the first step of an epoch": lambda: order.step(next(epochs) * order.steps_per_epoch),
        "go to another step of it": lambda: order.step(order.steps_per_epoch // 2),
    }
    table = Table("", "median ms", "min", "max", "peak MB", title=f"{len(lengths)} rows")
    for name, part in parts.items():
        order.step(0)
        times_ms = []
        for _ in range(repeats):
            started_s = time.perf_counter()
            part()
            times_ms.append((time.perf_counter() - started_s) * 1000)
        tracemalloc.start()
        part()
        peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        figures = (statistics.median(times_ms), min(times_ms), max(times_ms))
        table.add_row(name, *(f"{figure:.2f}" for figure in figures), f"{peak_mb:.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
