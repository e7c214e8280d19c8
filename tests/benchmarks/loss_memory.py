"""Peak memory and time of the loss alone, output layer and cross-entropy forward and backward: hpcsft and full logits.

    python -m tests.benchmarks.loss_memory [--vocabulary 128256] [--hidden 512] [--positions 2048] [--repeats 3]

Each run is a process of its own. What counts is the highest resident memory above what is there before, less the
gradients that stay: weights, hidden states and their gradients are needed in any case. `full logits` is what Hugging
Face models do: logits of all positions, cast to float32, cross-entropy that passes over the masked ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.children import CORES, run_child, take_cores

TIMEOUT_S = 600
GOAL = 0.1
"""Of the memory of full logits."""
WAYS = {"full logits": "full", "hpcsft": "ours"}
MASKED = -100
RESET_PEAK = "5"
"""Written to clear_refs it sets VmHWM back to what is resident now (proc(5))."""


def main() -> int:
    """Measure and print a table, or be one of the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=128_256)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=WAYS.values(), help="be one run: print one JSON line")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--supervised", type=float, default=1.0, help="share of the positions")
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments)))
        return 0
    take_cores()
    sizes = ["--vocabulary", arguments.vocabulary, "--hidden", arguments.hidden, "--positions", arguments.positions]
    print(
        f"\nVocabulary {arguments.vocabulary}, {arguments.positions} positions of {arguments.hidden}, {CORES} cores\n"
    )
    print("| precision | supervised | | peak MB above weights and gradients | : full logits | seconds |")
    print("|---|---|---|---|---|---|")
    for precision in ("float32", "bfloat16"):
        for supervised in (1.0, 0.5):
            full_mb = 0.0
            for name, way in WAYS.items():
                options = [*sizes, "--way", way, "--precision", precision, "--supervised", supervised]
                python = Path(sys.executable)
                made = [run_child(python, "loss_memory", options, name, TIMEOUT_S) for _ in range(arguments.repeats)]
                if not (runs := [run for run in made if run]):
                    continue
                peak_mb, seconds = (statistics.median(run[field] for run in runs) for field in ("peak_mb", "seconds"))
                full_mb = peak_mb if way == "full" else full_mb
                ratio = f"{peak_mb / full_mb:.3f}" if full_mb else ""
                print(
                    f"| {precision} | {supervised:.0%} | {name} | {peak_mb:.0f} | {ratio} | {seconds:.2f} |", flush=True
                )
    print(f"\nGoal: at most {GOAL} of full logits.")
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One forward and backward pass, after a small one that starts threads and libraries."""
    import torch
    from torch.nn import functional

    from hpcsft.models.cross_entropy import linear_cross_entropy

    def run(positions: int, vocabulary: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(0)
        dtype = getattr(torch, arguments.precision)
        weight = torch.empty(vocabulary, arguments.hidden, dtype=dtype).normal_(0, 0.02, generator=generator)
        hidden = torch.empty(positions, arguments.hidden, dtype=dtype).normal_(generator=generator)
        weight.requires_grad_()
        hidden.requires_grad_()
        labels = torch.randint(vocabulary, (positions,), generator=generator)
        masked = torch.rand(positions, generator=generator) >= arguments.supervised
        before_mb = memory_mb(reset=True)
        started_s = time.perf_counter()
        if arguments.way == "full":
            labels[masked] = MASKED
            logits = functional.linear(hidden, weight).float()
            loss = functional.cross_entropy(logits, labels, ignore_index=MASKED, reduction="sum")
            del logits
        else:
            kept = (~masked).nonzero()[:, 0]
            loss = linear_cross_entropy(hidden[kept], weight, labels[kept])
        (loss / positions).backward()
        seconds = time.perf_counter() - started_s
        gradients_mb = sum(tensor.grad.nbytes for tensor in (weight, hidden)) / 2**20
        return {"peak_mb": memory_mb() - before_mb - gradients_mb, "seconds": seconds, "loss": loss.item()}

    torch.set_num_threads(CORES)
    run(64, 1024)
    return run(arguments.positions, arguments.vocabulary)


def memory_mb(reset: bool = False) -> float:
    """The highest resident memory until now; with `reset`, what is resident now, and the peak starts anew."""
    if reset:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
