"""How fast conversations become training rows: the bare tokenizer, hpcsft, and its peers, side by side.

    python -m tests.benchmarks.preprocess_speed [--repeats 5] [--trl-python VENV/bin/python]
        [--llama-factory-python VENV/bin/python] [--tokenizers byte-level=FOLDER llama-like=FOLDER] [--data NAME ...]

Every figure is the median of the repeats; in each repeat all are run once, in turn, each in a process of its own and on
the same two cores. The clock runs from the file to finished rows (see tests/benchmarks/peers); imports, loading the
tokenizer and a first run on 64 other conversations are not measured. Speeds are in tokens of the input for everyone:
whole conversations in the template user_assistant, however many of them the peer keeps. A Python for TRL needs
`pip install torch trl`, one for LLaMA-Factory a venv of its own: 0.9.5 wants older packages than hpcsft.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks import conversations
from tests.benchmarks.children import CORES, run_child, take_cores

WARM_UP_CONVERSATIONS = 64
TIMEOUT_S = 900
GOALS = {"tokenizer": 0.80, "LLaMA-Factory": 2.2, "TRL": 4.0, "reference": 4.0}
"""Speed of hpcsft to that of each, at its best."""


PEERS = ("hpcsft", *GOALS, "splitter")


class Setting(NamedTuple):
    """One way to run one peer."""

    peer: str
    module: str
    label: str
    options: tuple[str, ...] = ()
    messages: bool = False
    """Reads `messages` JSONL."""


SETTINGS = (
    Setting("tokenizer", "tokenizer", "the Rust tokenizer alone"),
    Setting("hpcsft", "hpcsft", "hpcsft, one task of two threads"),
    Setting("hpcsft", "hpcsft", "hpcsft, an array of two tasks", ("--num-proc", "2")),
    Setting("reference", "reference", "reference loop without its splitter"),
    Setting("splitter", "reference", "reference loop with its splitter", ("--splitter",)),
    *(
        Setting("LLaMA-Factory", "llama_factory", f"LLaMA-Factory, num_proc {n}", ("--num-proc", str(n)), True)
        for n in (1, 2, 4)
    ),
    *(
        Setting("TRL", "trl", f"TRL, num_proc {n}, {name}", ("--num-proc", str(n), *options), True)
        for name, options in (("packed (bfd)", ("--packing",)), ("not packed", ()))
        for n in (1, 2)
    ),
)

CONDITIONS = """\
tokenizer: encode_batch_fast on the texts of all turns, 512 conversations at a time, threads on; texts already in memory
hpcsft: reading, checking, tokenizing, splitting at turns, writing shards with fsync, manifest and audit
reference: one tokenizer call per piece, lists, rows cut at the maximum length, padded batches of 2 as torch tensors
LLaMA-Factory: get_dataset, template `default` (the nearest to user_assistant), loss on all answers, cut, not packed
TRL: load_dataset, SFTTrainer's preparation, assistant_only_loss, user_assistant with {% generation %}, cut"""


def main() -> int:
    """Measure and print a table per tokenizer and data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizers", nargs="+", default=["byte-level=.quickstart/model", "llama-like="])
    parser.add_argument("--data", nargs="+", default=["ultrachat_like", "as_they_are"], help="names of data sets")
    parser.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--settings", nargs="+", help="only those whose label holds one of these")
    parser.add_argument(
        "--conversations", type=int, default=2000, help="of ultrachat_like (default 2000; a shard holds 4096)"
    )
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--trl-python", type=Path)
    parser.add_argument("--llama-factory-python", type=Path)
    parser.add_argument("--json", type=Path, help="write every single measurement there")
    arguments = parser.parse_args()
    take_cores()
    pythons = {"TRL": arguments.trl_python, "LLaMA-Factory": arguments.llama_factory_python}
    settings = [setting for setting in SETTINGS if setting.peer in arguments.peers]
    if arguments.settings:
        settings = [setting for setting in settings if any(text in setting.label for text in arguments.settings)]
    left_out = {setting.peer for setting in settings if pythons.get(setting.peer, sys.executable) is None}
    settings = [setting for setting in settings if setting.peer not in left_out]
    everything: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = prepare_data(Path(folder), arguments.conversations)
        for named in arguments.tokenizers:
            name, _, path = named.partition("=")
            tokenizer = Path(path) if path else conversations.make_llama_like(Path(folder) / "llama-like")
            if not (tokenizer / "tokenizer.json").exists():
                print(f"error: no tokenizer in {tokenizer}", file=sys.stderr)
                print("hint: make quickstart leaves one in .quickstart/model; or give NAME=FOLDER", file=sys.stderr)
                return 2
            for data in arguments.data:
                tokens = input_tokens(paths[data], tokenizer)
                title = f"{data}, {name}: {tokens / 1e6:.2f} million tokens, median of {arguments.repeats}"
                runs: dict[str, list[dict[str, float]]] = {setting.label: [] for setting in settings}
                for _ in range(arguments.repeats):
                    for setting in settings:
                        python = pythons.get(setting.peer) or Path(sys.executable)
                        made = run(setting, python, paths[data], tokenizer, arguments.max_length)
                        runs[setting.label] += [made] if made else []
                print_table(title, settings, runs, tokens)
                everything[f"{data} {name}"] = {"tokens": tokens, "runs": runs}
    for peer in sorted(left_out):
        print(f"left out: {peer}, for want of --{peer.lower()}-python")
    print(f"Conditions: {CORES} cores, rows of at most {arguments.max_length} tokens.\n{CONDITIONS}")
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, indent=1))
    return 0


def prepare_data(folder: Path, num_composed: int) -> dict[str, Path]:
    """Each data set in both forms, and the files to warm up with, of other conversations, beside them."""
    paths = conversations.make_data(folder, num_composed=num_composed)
    composed = conversations.ultrachat_like(conversations.read_rounds(), seed=2)
    warm = list(itertools.islice(composed, WARM_UP_CONVERSATIONS))
    conversations.write_conversations(folder / "warm.jsonl", warm)
    conversations.write_messages(folder / "warm.messages.jsonl", warm)
    for path in paths.values():
        conversations.write_messages(path.with_suffix(".messages.jsonl"), conversations.read_conversations(path))
    return paths


def input_tokens(file: Path, folder: Path) -> int:
    """Tokens of all conversations, whole, piece by piece in the template user_assistant."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bos = int(bool(json.loads((folder / "tokenizer_config.json").read_text()).get("bos_token")))
    tokens = 0
    for texts in conversations.read_conversations(file):
        pieces = []
        for number in range(0, len(texts), 2):
            question = ("\n" if number else "") + "User: " + texts[number]
            pieces += [question, "\nAssistant: ", texts[number + 1]]
        encoded = tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        tokens += sum(map(len, encoded)) + bos + len(texts)
    return tokens


def run(setting: Setting, python: Path, file: Path, tokenizer: Path, max_length: int) -> dict[str, float] | None:
    """One run of a peer in a fresh process and a fresh folder; None, and a line that says why, if it fails."""
    form = ".messages.jsonl" if setting.messages else ".jsonl"
    with tempfile.TemporaryDirectory() as folder:
        options = [file.with_suffix(form), "--warm-up", file.with_name(f"warm{form}"), "--folder", folder]
        options += ["--tokenizer", tokenizer.resolve(), "--max-length", max_length, *setting.options]
        measured = run_child(python, f"peers.{setting.module}", options, setting.label, TIMEOUT_S)
    if measured:
        print(f"{measured['seconds']:6.2f} s  {setting.label}", file=sys.stderr, flush=True)
    return measured


def print_table(title: str, settings: list[Setting], runs: dict[str, list[dict[str, float]]], tokens: int) -> None:
    """One line per setting, and hpcsft against the best setting of each peer."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "Mtok/s", "min", "max", "CPU s", "tokens in rows", "hpcsft : it", title=title)
    seconds = {label: statistics.median(run["seconds"] for run in made) for label, made in runs.items() if made}
    ours_s = min((seconds[s.label] for s in settings if s.peer == "hpcsft" and s.label in seconds), default=None)
    best_s: dict[str, float] = {}
    for setting in settings:
        made = runs[setting.label]
        if not made:
            continue
        median_s = seconds[setting.label]
        best_s[setting.peer] = min(best_s.get(setting.peer, median_s), median_s)
        speeds = [tokens / run["seconds"] / 1e6 for run in made]
        kept = "" if setting.peer == "tokenizer" else f"{made[0]['tokens'] / tokens:.1%}"
        figures = [f"{value:.2f}" for value in (tokens / median_s / 1e6, min(speeds), max(speeds))]
        cpu = f"{statistics.median(run['cpu_seconds'] for run in made):.1f}"
        table.add_row(setting.label, *figures, cpu, kept, f"{median_s / ours_s:.2f}" if ours_s else "")
    Console(width=120).print(table)
    for peer, goal in GOALS.items():
        if ours_s and peer in best_s:
            print(f"hpcsft : {peer} at its best = {best_s[peer] / ours_s:.2f} (goal {goal:.2f})")


if __name__ == "__main__":
    sys.exit(main())
