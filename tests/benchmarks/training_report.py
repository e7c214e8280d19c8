"""What train_step measured, as Markdown: a table per model and data set, the goals beside it, the conditions. Pure.

A run is what a peer printed (see peers/train_clock.py), with `peer`, `label`, `precision`, `tokens_per_s` and `others`.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Run = dict[str, Any]
Key = tuple[str, str, str]
"""Peer, precision, label."""

REFERENCE, OURS, PLAIN = "reference", "hpcsft", "plain loop"
ONE_PROCESS = "hpcsft, 1 x 2, ZeRO 1"
GOALS = {"long": {"HF Trainer": 1.7, "TRL": 2.2}, "short": {}}
REFERENCE_GOALS = {"long": 1.6, "short": 2.5}
OVERHEAD_GOAL = 0.15

NOTES = """\
- reference: rows in the order of the file, 2 at a time, padded on the right; loss of the Hugging Face model over all
  logits; AdamW. bfloat16-pure is its own: parameters and optimizer states in bfloat16. bfloat16 here adds float32
  masters.
- HF Trainer and TRL: bfloat16 is autocast over float32 parameters. TRL's packed and padding-free rows run in PyTorch's
  attention with a mask: its kernels for documents and for the loss want a GPU.
- hpcsft: the stage `train` in its own processes, RANKS x THREADS, DeepSpeed; bfloat16 with float32 masters. The clock
  runs between lines of metrics.jsonl. Peak memory: of all ranks and watchdogs, what they share counted for each.
- plain loop: hpcsft's batches, attention and loss with AdamW in a loop, no DeepSpeed, no run directory.
- Nobody saves or validates. Imports, model loading and the first steps are not on the clock, but in peak memory."""


def medians(runs: list[Run], field: str) -> dict[Key, float]:
    """The median of a field for each setting that ran."""
    values: dict[Key, list[float]] = {}
    for run in runs:
        values.setdefault((run["peer"], run["precision"], run["label"]), []).append(run[field])
    return {key: statistics.median(found) for key, found in values.items()}


def best(speeds: dict[Key, float], peer: str, precision: str = "") -> float | None:
    """The fastest of a peer, in one precision (bfloat16 is both kinds of it) or in any; None if it did not run."""
    return max((v for (who, name, _), v in speeds.items() if who == peer and name.startswith(precision)), default=None)


def table(title: str, facts: dict[str, float], runs: list[Run]) -> str:
    """One line per setting."""
    lines = [
        f"\n### {title}\n",
        f"{facts['parameters'] / 1e6:.1f}M parameters; {facts['rows']:.0f} rows of {facts['mean_row']:.0f} tokens on "
        f"average, of {facts['conversations']:.0f} conversations of {facts['mean_conversation']:.0f}; "
        f"{facts['supervised']:.0%} of the tokens supervised; {facts['padding']:.0%} padding in pairs of the file's "
        "order.\n",
        "| | precision | useful tokens/s | min to max | runs | : reference | a step | padding | peak MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    speeds, peaks = medians(runs, "tokens_per_s"), medians(runs, "peak_mb")
    for key, speed in speeds.items():
        _, precision, label = key
        made = [run for run in runs if run["label"] == label and run["precision"] == precision]
        each = [run["tokens_per_s"] for run in made]
        reference = best(speeds, REFERENCE, precision.removesuffix("-pure"))
        ratio = f"{speed / reference:.2f}" if reference else ""
        per_step = sum(run["tokens"] for run in made) / sum(run["steps"] for run in made)
        padding = 1 - sum(run["tokens"] for run in made) / sum(run["positions"] for run in made)
        pss = [run["peak_pss_mb"] for run in made if "peak_pss_mb" in run]
        peak = f"{peaks[key]:.0f}" + (f" (PSS {statistics.median(pss):.0f})" if pss else "")
        figures = (f"{speed:.0f}", f"{min(each):.0f} to {max(each):.0f}", str(len(made)), ratio)
        lines.append(f"| {' | '.join([label, precision, *figures, f'{per_step:.0f}', f'{padding:.0%}', peak])} |")
    return "\n".join(lines)


def goals(data: str, runs: list[Run]) -> str:
    """hpcsft at its best beside each peer at its best, with what is asked for."""
    speeds, peaks = medians(runs, "tokens_per_s"), medians(runs, "peak_mb")
    lines = [""]
    for precision in ("float32", "bfloat16"):
        ours, theirs = best(speeds, OURS, precision), best(speeds, REFERENCE, precision)
        if ours and theirs:
            lines.append(f"- hpcsft : reference in {precision} = {ours / theirs:.2f} (goal {REFERENCE_GOALS[data]})")
    ours = best(speeds, OURS)
    for peer in ("HF Trainer", "TRL"):
        if ours and (theirs := best(speeds, peer)):
            asked = f" (goal {GOALS[data][peer]})" if peer in GOALS[data] else ""
            lines.append(f"- hpcsft : {peer}, each at its best = {ours / theirs:.2f}{asked}")
    for precision in ("float32", "bfloat16"):
        engine, plain = speeds.get((OURS, precision, ONE_PROCESS)), best(speeds, PLAIN, precision)
        if engine and plain:
            cost = f"{plain / engine - 1:+.1%} time (goal {OVERHEAD_GOAL:.0%})"
            lines.append(f"- {ONE_PROCESS} over the plain loop at its best in {precision}: {cost}")
    lines += memory_goals(peaks)
    return "\n".join(lines)


def memory_goals(peaks: dict[Key, float]) -> Iterable[str]:
    """Peak memory of one process of hpcsft beside the leanest peer in the same precision."""
    for precision in ("float32", "bfloat16"):
        ours = [v for (who, name, label), v in peaks.items() if (who, name) == (OURS, precision) and "1 x" in label]
        theirs = {
            key: value for key, value in peaks.items() if key[0] not in (OURS, PLAIN) and key[1].startswith(precision)
        }
        if ours and theirs:
            leanest = min(theirs, key=theirs.__getitem__)
            yield (
                f"- peak memory in {precision}, one process: hpcsft {min(ours):.0f} MB, the leanest peer "
                f"{theirs[leanest]:.0f} MB ({leanest[2]}, {leanest[1]})"
            )


def conditions(everything: dict[str, Any], options: dict[str, Any]) -> str:
    """Where and how all that was measured."""
    runs = [run for measured in everything.values() for run in measured["runs"]]
    versions: dict[str, set[str]] = {}
    for run in runs:
        for name, version in run["versions"].items():
            versions.setdefault(name, set()).add(version)
    told = ", ".join(f"{name} {'/'.join(sorted(found))}" for name, found in sorted(versions.items()))
    checkpointing = "on" if options["gradient_checkpointing"] else "off"
    others = [run["others"] for run in runs]
    busy = f"median {statistics.median(others):.0%}, at most {max(others):.0%}" if others else "not known"
    return (
        f"\nConditions: 2 cores ({cpu()}), Python {platform.python_version()}, {told}. Micro batches of 2 rows of "
        f"at most {options['max_length']} tokens, an optimizer step every {options['accumulation']}; gradient "
        f"checkpointing {checkpointing}; median of {options['repeats']} runs of at least {options['seconds']:.0f} s. "
        f"CPU time that went to other processes of the machine: {busy}.\n{NOTES}"
    )


def cpu() -> str:
    """The name of the processor."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()
