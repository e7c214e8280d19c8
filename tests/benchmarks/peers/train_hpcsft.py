"""hpcsft: the stage `train` as it is, in a prepared run, its ranks real processes; read from its metrics, then killed.

The clock runs over everything between two lines of metrics.jsonl. Nothing is saved or validated meanwhile.
`peak_mb` is the sum of what each rank had resident at most, its watchdog with it; `peak_pss_mb` counts what ranks share
once (libraries, rows), read twice a second.
"""

from __future__ import annotations

import argparse
import secrets
import time
from datetime import datetime
from typing import Any

from hpcsft.records import read_jsonl
from hpcsft.rundir import RunDir
from tests.benchmarks.peers.train_clock import MICRO_BATCH, Clock, measure
from tests.benchmarks.preprocess_memory import family, fields, memory_of
from tests.benchmarks.training_inputs import run_values
from tests.train.ranks import new_run, start

NEVER = 1_000_000
PERIOD_S = 0.5


def train(arguments: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """Until the metrics hold enough steps."""
    run = prepared(arguments)
    ranks = start(run, arguments.ranks)
    pids = [rank.pid for rank in ranks]
    measured: dict[str, Any] = {}
    peaks_mb: dict[str, float] = {}
    pss_mb = 0.0
    try:
        while not measured:
            time.sleep(PERIOD_S)
            if any(rank.poll() is not None for rank in ranks):
                break
            for process in (process for pid in pids for process in family(pid)):
                now_mb = fields(process / "status").get("VmHWM", 0.0)  # none once it has ended
                peaks_mb[process.name] = max(peaks_mb.get(process.name, 0.0), now_mb)
            pss_mb = max(pss_mb, sum(memory_of(pid, pss=True).pss for pid in pids))
            measured = summary(list(read_jsonl(run.metrics)), arguments)
    finally:
        for rank in ranks:
            rank.kill()
        outputs = [rank.communicate()[0] for rank in ranks]
    if not measured:
        raise SystemExit("\n".join(outputs))
    return {**measured, "peak_mb": sum(peaks_mb.values()), "peak_pss_mb": pss_mb}


def prepared(arguments: argparse.Namespace) -> RunDir:
    """A run of its own, its rows linked from the cache that the first run of the same data filled."""
    values = run_values(arguments.model, arguments.conversations, arguments.max_length)
    values["name"] += f"-{secrets.token_hex(4)}"  # metrics of another run of the same spec are not ours
    values["seed"] = 42 + arguments.repeat
    values["model"] |= {
        "dtype": arguments.precision.removesuffix("-pure"),
        "gradient_checkpointing": arguments.gradient_checkpointing,
    }
    values["train"] = {
        "master_weights": not arguments.precision.endswith("-pure"),
        "epochs": 20,
        "micro_batch_size": MICRO_BATCH,
        "global_batch_size": MICRO_BATCH * arguments.accumulation * arguments.ranks,
        "zero_stage": arguments.zero_stage,
        "checkpoint": {"every_steps": NEVER, "background": False},
    }
    threads = arguments.threads // arguments.ranks
    values["cluster"]["train"] = {"tasks_per_node": arguments.ranks, "cpus_per_task": threads}
    return new_run(values, arguments.folder / "runs")


def summary(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """The measured steps in the form of the clock's; empty while they are not enough."""
    warm_up, rest = rows[: arguments.warm_up_steps], rows[arguments.warm_up_steps :]
    if len(rest) < arguments.min_steps:
        return {}
    times = [datetime.fromisoformat(row["time"]) for row in (warm_up[-1], rest[-1])]
    seconds = (times[1] - times[0]).total_seconds()
    if seconds < arguments.seconds:
        return {}
    counts = {name: sum(row[key] for row in rest) for name, key in COUNTS.items()}
    losses = [row["loss"] for row in rows]
    return {**counts, "seconds": seconds, "steps": len(rest), "losses": losses}


COUNTS = {"tokens": "tokens", "supervised": "supervised_tokens", "positions": "tokens"}


if __name__ == "__main__":
    measure(
        train,
        ("--ranks", {"type": int, "default": 1}),
        ("--zero-stage", {"type": int, "default": 1}),
    )
