"""Training speed and peak memory of hpcsft and its peers: same model, same rows, same cores, side by side in one run.

    python -m tests.benchmarks.train_step [--models small 135m] [--data long short] [--trl-python VENV/bin/python]
        [--repeats 3] [--seconds 20] [--peers hpcsft TRL ...] [--settings TEXT ...] [--accumulation 4]

Tokens are useful ones, padding is not counted; the clock runs over whole optimizer steps after a warm-up. Everyone
takes an optimizer step every `--accumulation` micro batches of 2 rows; those that pack put as many rows into the
2 x 1024 positions as fit, so that they take fewer steps for the same tokens. Each repeat runs all settings in turn,
each in processes of its own and on other rows. Figures are medians; a setting that is more than 15% slower than the
best of its peer in its precision is measured once only. A run during which other processes took more than a tenth of
the CPU time is tried again, twice at most: threads that wait for each other suffer out of all proportion.

Models: small, a random Llama (8 layers, 256 wide, vocabulary 32k); 135m, SmolLM2-135M as `python -m hpcsft.quickstart
.quickstart` leaves it. Data, from real dialogs: long, composed to conversations of UltraChat's length and split
to rows of at most 1024 tokens; short, the dialogs as they are. A Python for TRL needs `pip install torch trl`. All at
the defaults takes some hours.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks import training_report
from tests.benchmarks.children import CORES, run_child, take_cores
from tests.benchmarks.training_inputs import DATA, Inputs, make_conversations, make_inputs, make_small_model

TIMEOUT_S = 1800
DISTURBED = 0.1
"""Share of the CPU time of the machine that other processes took, beyond which a run is tried again."""
TRIES = 3
NOT_WORTH_REPEATING = 0.85
"""Of the speed of the best setting of the same peer in the same precision."""


class Setting(NamedTuple):
    """One way to run one peer."""

    peer: str
    module: str
    label: str
    precision: str
    options: tuple[str, ...] = ()


def settings_of(peer: str, module: str, ways: dict[str, tuple[str, ...]], *precisions: str) -> list[Setting]:
    """A setting for each way in each precision."""
    return [
        Setting(peer, module, f"{peer}, {way}", name, options) for name in precisions for way, options in ways.items()
    ]


BOTH = ("float32", "bfloat16")

SETTINGS = (
    *settings_of("reference", "train_reference", {"padded": ()}, "float32", "bfloat16", "bfloat16-pure"),
    *settings_of(
        "HF Trainer",
        "train_huggingface",
        {"padded": (), "padded, grouped by length": ("--sampling", "group_by_length")},
        *BOTH,
    ),
    *settings_of("TRL", "train_trl", {way: ("--way", way) for way in ("padded", "padding-free", "packed")}, *BOTH),
    *settings_of(
        "hpcsft",
        "train_hpcsft",
        {
            f"{ranks} x {CORES // ranks}, ZeRO {stage}": ("--ranks", str(ranks), "--zero-stage", str(stage))
            for ranks in (1, 2)
            for stage in (1, 2)
        },
        *BOTH,
    ),
    *settings_of("plain loop", "train_plain", {"AdamW": (), "fused AdamW": ("--fused",)}, *BOTH),
)

PEERS = tuple(dict.fromkeys(setting.peer for setting in SETTINGS))


class Model(NamedTuple):
    """How long to look at a model; its steps take from one to thirty seconds."""

    warm_up_steps: int
    min_steps: int


MODELS = {"small": Model(2, 6), "135m": Model(1, 3)}


def main() -> int:
    """Measure and print a table per model and data set, and what is asked of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=DATA)
    parser.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS)
    parser.add_argument("--precisions", nargs="+", default=BOTH, choices=BOTH)
    parser.add_argument("--settings", nargs="+", help="only those whose label holds one of these")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="to measure at least, in each run")
    parser.add_argument("--accumulation", type=int, default=1, help="micro batches per optimizer step (and rank)")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="for everyone")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--model-135m", type=Path, default=Path(".quickstart/model"), help="Hugging Face folder")
    parser.add_argument("--trl-python", type=Path)
    parser.add_argument("--json", type=Path, help="write every single measurement there")
    arguments = parser.parse_args()
    take_cores()
    if "135m" in arguments.models and not (arguments.model_135m / "model.safetensors").exists():
        print(f"error: no model in {arguments.model_135m}", file=sys.stderr)
        print("hint: python -m hpcsft.quickstart .quickstart makes one; or --models small", file=sys.stderr)
        return 2
    settings = list(chosen(arguments))
    everything: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = make_conversations(folder)
        for name in arguments.models:
            model = make_small_model(folder / "small") if name == "small" else arguments.model_135m
            for data in arguments.data:
                inputs = make_inputs(model.resolve(), files[data], folder / "runs", arguments.max_length)
                runs = compare(settings, MODELS[name], inputs, folder, arguments)
                everything[f"{name} {data}"] = {"facts": inputs.facts, "runs": runs}
                if arguments.json:
                    arguments.json.write_text(json.dumps(everything, indent=1))
                print(training_report.table(f"{name}, {data}", inputs.facts, runs), flush=True)
                print(training_report.goals(data, runs), flush=True)
    if "TRL" in arguments.peers and not arguments.trl_python:
        print("left out: TRL, for want of --trl-python")
    print(training_report.conditions(everything, vars(arguments)))
    return 0


def chosen(arguments: argparse.Namespace) -> Iterable[Setting]:
    """The settings that the command line leaves."""
    for setting in SETTINGS:
        wanted = setting.peer in arguments.peers and setting.precision.removesuffix("-pure") in arguments.precisions
        if arguments.settings:
            wanted = wanted and any(text in setting.label for text in arguments.settings)
        if wanted and (setting.peer != "TRL" or arguments.trl_python):
            yield setting


def compare(
    settings: list[Setting], model: Model, inputs: Inputs, folder: Path, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Every measurement: what the peer printed, with peer, label, precision, and the share of the cores others took."""
    runs: list[dict[str, Any]] = []
    for repeat in range(arguments.repeats):
        for setting in settings if repeat == 0 else worth_repeating(settings, runs):
            measure = functools.partial(run, setting, model, inputs, folder, repeat, arguments)
            if made := undisturbed(measure):
                named = {"peer": setting.peer, "label": setting.label, "precision": setting.precision}
                runs.append({**named, **made, "tokens_per_s": made["tokens"] / made["seconds"]})
                told = f"{runs[-1]['tokens_per_s']:8.1f} tokens/s  {setting.precision:13} {setting.label}"
                print(f"{told}; others took {made['others']:.0%}", file=sys.stderr, flush=True)
    return runs


def undisturbed(measure: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    """The first run that others left the cores to, or the least disturbed of a few; None if it fails."""
    least: dict[str, Any] | None = None
    for _ in range(TRIES):
        made = measure()
        if made is None:
            return least
        if least is None or made["others"] < least["others"]:
            least = made
        if made["others"] <= DISTURBED:
            break
        print(f"         others took {made['others']:.0%} of the CPU time: again", file=sys.stderr, flush=True)
    return least


def worth_repeating(settings: list[Setting], runs: list[dict[str, Any]]) -> list[Setting]:
    """Those whose first run was not far behind the best of their peer and precision."""
    first = {(run["label"], run["precision"]): run for run in reversed(runs)}
    best: dict[tuple[str, str], float] = {}
    for run in first.values():
        key = run["peer"], run["precision"]
        best[key] = max(best.get(key, 0.0), run["tokens_per_s"])
    return [
        setting
        for setting in settings
        if (run := first.get((setting.label, setting.precision)))
        and run["tokens_per_s"] >= NOT_WORTH_REPEATING * best[setting.peer, setting.precision]
    ]


def run(
    setting: Setting, model: Model, inputs: Inputs, folder: Path, repeat: int, arguments: argparse.Namespace
) -> dict[str, Any] | None:
    """One run of a peer; None, and a line that says why, if it fails."""
    options: list[object] = [inputs.rows, "--model", inputs.model, "--folder", folder]
    options += ["--conversations", inputs.conversations, "--data", inputs.data, "--precision", setting.precision]
    options += ["--accumulation", arguments.accumulation, "--max-length", arguments.max_length, "--threads", CORES]
    options += ["--warm-up-steps", model.warm_up_steps, "--min-steps", model.min_steps, "--seconds", arguments.seconds]
    options += ["--repeat", repeat, *setting.options]
    options += ["--gradient-checkpointing"] if arguments.gradient_checkpointing else []
    python = arguments.trl_python if setting.peer == "TRL" else Path(sys.executable)
    busy_s, own_s = busy_seconds(), child_seconds()
    made = run_child(python, f"peers.{setting.module}", options, setting.label, TIMEOUT_S)
    others = max(0.0, 1 - (child_seconds() - own_s) / (busy_seconds() - busy_s))
    return {**made, "others": others} if made else None


def child_seconds() -> float:
    """CPU time of all children that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def busy_seconds() -> float:
    """CPU time of all processes of the machine, and what a hypervisor took away."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, soft, steal, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + soft + steal) / 100


if __name__ == "__main__":
    sys.exit(main())
