"""How long a checkpoint holds training up: DeepSpeed's own save, ours written at once, ours in the background.

    python -m tests.benchmarks.checkpoint_stall [MODEL] [--repeats 5] [--zero-stage 2] [--folder /scratch]

Ranks of one thread each train a real model in float32 over gloo and save it in turn in the three ways, so that all meet
the same load. Every figure is a median over the repeats, of the slowest rank.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

MICRO_BATCH, SEQUENCE_TOKENS = 1, 96
CALM_STEPS = 3
"""Undisturbed steps per repeat, which the steps during a write are compared with."""


def main() -> int:
    """Start the ranks, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=Path(".quickstart/model"), help="Hugging Face folder")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--zero-stage", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where checkpoints go")
    arguments = parser.parse_args()
    if not (arguments.model / "config.json").exists():
        print(f"error: no model in {arguments.model}", file=sys.stderr)
        print("hint: python -m hpcsft.quickstart .quickstart makes one", file=sys.stderr)
        return 2
    if "RANK" in os.environ:
        measure(arguments)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no rank outlives this
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        command = [sys.executable, "-m", "tests.benchmarks.checkpoint_stall", *sys.argv[1:], "--folder", folder]
        rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(arguments.ranks)}
        ranks = [
            subprocess.Popen(
                command,
                env={
                    **os.environ,
                    **rendezvous,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "OMP_NUM_THREADS": "1",
                    "HF_HUB_OFFLINE": "1",
                    "PYTHONWARNINGS": "ignore",
                },
            )
            for rank in range(arguments.ranks)
        ]
        try:
            while any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
                time.sleep(0.2)
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
    return max(abs(rank.returncode) for rank in ranks)


def measure(arguments: argparse.Namespace) -> None:
    """One rank: train, save in the three ways, repeat; rank 0 prints the table."""
    import torch
    import torch.distributed as dist

    from hpcsft.train.snapshot import SnapshotEngine, snapshot_bytes

    load_before = os.getloadavg()[0]
    engine = make_engine(arguments.model, arguments.zero_stage)
    step(engine)
    plain, snapshot = engine.checkpoint_engine, SnapshotEngine()
    needed_bytes = snapshot_bytes(engine)
    snapshot.reserve(needed_bytes)
    for _ in range(3):
        step(engine)
    rows: list[dict[str, float]] = []
    sizes: list[int] = []
    for _ in range(arguments.repeats):
        row = {"calm_step_s": statistics.median(step(engine) for _ in range(CALM_STEPS))}
        engine.checkpoint_engine = plain
        row["plain_s"] = save(engine, arguments.folder)
        remove(arguments.folder)

        engine.checkpoint_engine = snapshot
        snapshot.begin(background=False)
        row["durable_s"] = save(engine, arguments.folder, snapshot.finish)
        remove(arguments.folder)

        snapshot.begin(background=True)
        row["snapshot_s"] = save(engine, arguments.folder, snapshot.start)
        started_s = time.perf_counter()
        ended_s: list[float] = []
        watch = threading.Thread(target=wait_for_write, args=(snapshot, ended_s))
        watch.start()
        steps_s = [step(engine)]
        while highest(float(snapshot.writing)):
            steps_s.append(step(engine))
        facts = snapshot.finish()
        watch.join()
        row["write_s"] = ended_s[0] - started_s
        row["busy_step_s"] = statistics.mean(steps_s)
        row["lost_s"] = sum(steps_s) - len(steps_s) * row["calm_step_s"]
        rows.append({name: highest(value) for name, value in row.items()})
        if dist.get_rank() == 0:
            print({name: round(value, 2) for name, value in rows[-1].items()}, flush=True)
        sizes = [0] * dist.get_world_size()
        dist.all_gather_object(sizes, sum(fact.size_bytes for fact in facts.values()))
        remove(arguments.folder)
    peak_kb = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    peaks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(peaks, round(peak_kb / 1e6, 1))
    if dist.get_rank() == 0:
        import deepspeed

        print_table(rows)
        print(f"load {load_before:.1f} before, {os.getloadavg()[0]:.1f} after; {os.cpu_count()} cores")
        print(f"torch {torch.__version__}, DeepSpeed {deepspeed.__version__}, Python {sys.version.split()[0]}")
        print(f"{arguments.model}, ZeRO {arguments.zero_stage}, float32, {dist.get_world_size()} ranks of 1 thread")
        print(f"files {[round(size / 1e9, 2) for size in sizes]} GB per rank, peak {peaks} GB per rank")
    dist.destroy_process_group()


def make_engine(model_folder: Path, zero_stage: int) -> Any:
    """The model under DeepSpeed, on the CPU."""
    import deepspeed
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    config = {
        "train_micro_batch_size_per_gpu": MICRO_BATCH,
        "gradient_clipping": 1.0,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-6, "torch_adam": True}},
        "zero_optimization": {"stage": zero_stage},
        "steps_per_print": 10**9,
    }
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    engine, *_ = deepspeed.initialize(model=model.train(), config=config, dist_init_required=False)
    return engine


def step(engine: Any) -> float:
    """One optimizer step on random tokens; its seconds."""
    import torch

    input_ids = torch.randint(0, 1000, (MICRO_BATCH, SEQUENCE_TOKENS))
    started_s = time.perf_counter()
    loss = engine(input_ids=input_ids, labels=input_ids).loss
    engine.backward(loss)
    engine.step()
    return time.perf_counter() - started_s


def save(engine: Any, folder: Path, then: Any = None) -> float:
    """Save, and `then`; the seconds until the slowest rank may train on."""
    import torch.distributed as dist

    dist.barrier()
    started_s = time.perf_counter()
    engine.save_checkpoint(str(folder), tag="checkpoint", save_latest=False)
    if then:
        then()
    dist.barrier()
    return time.perf_counter() - started_s


def remove(folder: Path) -> None:
    """Drop the checkpoint, and with it what the page cache had yet to write of it."""
    import torch.distributed as dist

    dist.barrier()
    if dist.get_rank() == 0:
        shutil.rmtree(folder / "checkpoint")
    dist.barrier()


def wait_for_write(snapshot: Any, ended_s: list[float]) -> None:
    """Note when the write ended, to 20 ms."""
    while snapshot.writing:
        time.sleep(0.02)
    ended_s.append(time.perf_counter())


def highest(value: float) -> float:
    """The greatest of all ranks' values."""
    import torch
    import torch.distributed as dist

    tensor = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.item()


def print_table(rows: list[dict[str, float]]) -> None:
    """One line per way to save."""
    from rich.console import Console
    from rich.table import Table

    medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    table = Table("", "median s", "min", "max", "of plain", "of durable", title=f"median of {len(rows)} repeats")
    names = {
        "plain_s": "held up: DeepSpeed's own save (no fsync, no checksum)",
        "durable_s": "held up: the same with fsync and sha256, written at once",
        "snapshot_s": "held up: snapshot, written in the background",
        "write_s": "the write in the background takes",
        "lost_s": "what the steps meanwhile take longer, together",
        "calm_step_s": "step, undisturbed",
        "busy_step_s": "step, during the write",
    }
    for name, label in names.items():
        values = [row[name] for row in rows]
        shares = [f"{medians[name] / medians[base]:.1%}" for base in ("plain_s", "durable_s")]
        shares = shares if name in ("durable_s", "snapshot_s") else ["", ""]
        table.add_row(label, f"{medians[name]:.2f}", f"{min(values):.2f}", f"{max(values):.2f}", *shares)
    Console(width=120).print(table)
    print(f"the first snapshot, into reserved memory: {rows[0]['snapshot_s']:.2f} s")


if __name__ == "__main__":
    sys.exit(main())
