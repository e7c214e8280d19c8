"""Rows, clock and command line that all who train share. Standard library and numpy: it runs in the peers' Pythons.

Rows are pairs of int32 arrays of one length: input_ids and labels (-100 where nothing is
learnt).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

MASKED = -100
MICRO_BATCH = 2
LEARNING_RATE = 1e-5
PACKAGES = ("torch", "transformers", "trl", "deepspeed", "accelerate")

Row = tuple[np.ndarray, np.ndarray]


class Clock:
    """Counts optimizer steps and their tokens, from the end of the warm-up until time and steps are enough."""

    def __init__(self, warm_up_steps: int, min_steps: int, seconds: float):
        self.warm_up_steps = warm_up_steps
        self.min_steps = min_steps
        self.enough_s = seconds
        self.steps = 0
        self.losses: list[float] = []
        self._sums = self._before = self._measured = np.zeros(3, dtype=np.int64)
        self._started_s = self._measured_s = self._cpu_started_s = self._cpu_s = 0.0

    def count(self, tokens: int, supervised: int, positions: int) -> None:
        """A micro batch of so many `tokens` in so many `positions`, padding among them, was taken up."""
        self._sums = self._sums + np.array([tokens, supervised, positions])

    def step(self, loss: float | None = None) -> bool:
        """An optimizer step has ended. True when enough was measured."""
        now_s, cpu_s = time.perf_counter(), time.process_time()
        self.steps += 1
        if loss is not None:
            self.losses.append(loss)
        if self.steps == self.warm_up_steps:
            self._started_s, self._cpu_started_s, self._before = now_s, cpu_s, self._sums
        if self.steps <= self.warm_up_steps:
            return False
        self._measured_s, self._cpu_s = now_s - self._started_s, cpu_s - self._cpu_started_s
        self._measured = self._sums - self._before
        return self.steps - self.warm_up_steps >= self.min_steps and self._measured_s >= self.enough_s

    def result(self) -> dict[str, Any]:
        """What the JSON line says of the measured steps."""
        tokens, supervised, positions = self._measured.tolist()
        counts = {"tokens": tokens, "supervised": supervised, "positions": positions}
        times = {"seconds": self._measured_s, "cpu_seconds": self._cpu_s}
        return {**counts, **times, "steps": self.steps - self.warm_up_steps}


def measure(train: Callable[[argparse.Namespace, Clock], dict[str, Any] | None], *more: tuple[str, dict]) -> None:
    """Run `train`, which calls the clock until it says enough, and print the JSON line.

    `more` are further options, as for add_argument. What `train` returns is added to the line.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path, help=".npz of tests/benchmarks/training_inputs.py")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--folder", type=Path, required=True, help="scratch; prepared runs are in its runs/")
    parser.add_argument("--conversations", type=Path, help="what the rows were made of, for hpcsft's own runs")
    parser.add_argument("--data", type=Path, help="folder of the rows as hpcsft has them")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "bfloat16-pure"), default="float32")
    parser.add_argument("--accumulation", type=int, default=1, help="micro batches per optimizer step")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warm-up-steps", type=int, default=2)
    parser.add_argument("--min-steps", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--repeat", type=int, default=0, help="each begins with other rows, or draws another order")
    for name, options in more:
        parser.add_argument(name, **options)
    arguments = parser.parse_args()
    clock = Clock(arguments.warm_up_steps, arguments.min_steps, arguments.seconds)
    made = train(arguments, clock) or {}
    line = {"peak_mb": peak_mb(), "losses": clock.losses, "versions": versions()}
    print("\n" + json.dumps({**line, **(clock.result() if clock.steps else {}), **made}), flush=True)


def read_rows(file: Path) -> list[Row]:
    """All rows in the order of the file."""
    with np.load(file) as arrays:
        ids, labels, lengths = (arrays[name] for name in ("input_ids", "labels", "lengths"))
    ends = lengths.cumsum()[:-1]
    return list(zip(np.split(ids, ends), np.split(labels, ends), strict=True))


def endless_micro_batches(rows: list[Row], repeat: int) -> Iterator[list[Row]]:
    """MICRO_BATCH rows at a time in the order of the file, again and again; each repeat begins elsewhere."""
    place = repeat * 101 * MICRO_BATCH
    while True:
        yield [rows[(place + number) % len(rows)] for number in range(MICRO_BATCH)]
        place += MICRO_BATCH


def peak_mb(pid: int | str = "self") -> float:
    """The most memory that the process has had resident until now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def versions() -> dict[str, str]:
    """Of the packages that matter and are installed here."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def quiet() -> None:
    """No progress bars and no telemetry of the libraries. Call before they are imported."""
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TQDM_DISABLE": "1"}
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
