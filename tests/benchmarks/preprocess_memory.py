"""What preprocessing needs beyond the interpreter and the tokenizer, whatever the size of the file.

    python -m tests.benchmarks.preprocess_memory [--megabytes 100 1000] [--tokenizer FOLDER] [--folder /scratch]

A child process runs the body of the stage on a file of real utterances (ultrachat_like, see conversations.py) while its
anonymous memory (RssAnon + RssShmem) and its share of all memory (PSS) are read every 20 ms, with all processes that it
starts. From the peak goes what another child holds that imported the same and loaded the tokenizer. A file of 1 GB
takes several minutes and 5 GB of disk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import conversations
from tests.benchmarks.children import ROOT, environment

PERIOD_S = 0.02
PSS_EVERY = 25
"""PSS is read in one of so many rounds: the kernel walks all pages for it."""
GOAL_MB = 300


class Memory(NamedTuple):
    """Of a process and those below it, in MB."""

    anonymous: float = 0.0
    pss: float = 0.0

    def highest(self, other: Memory) -> Memory:
        """The greater of each."""
        return Memory(*map(max, self, other))


def main() -> int:
    """Measure each size and print one line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", nargs="+", type=float, default=[100])
    parser.add_argument("--tokenizer", type=Path, default=Path(".quickstart/model"), help="Hugging Face folder")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where data and shards go")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left in the folder
    if not (arguments.tokenizer / "tokenizer.json").exists():
        print(f"error: no tokenizer in {arguments.tokenizer}", file=sys.stderr)
        print("hint: make quickstart leaves one in .quickstart/model", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        idle = idle_memory(Path(folder), arguments.tokenizer)
        print(f"imports and tokenizer: {idle.anonymous:.0f} MB anonymous, {idle.pss:.0f} MB PSS", flush=True)
        for megabytes in arguments.megabytes:
            file = Path(folder) / "conversations.jsonl"
            composed = conversations.ultrachat_like(conversations.read_rounds(), seed=1)
            number = conversations.write_conversations(file, composed, megabytes * 1e6)
            with tempfile.TemporaryDirectory(dir=folder) as rows:
                peak, made = stage_memory(file, Path(rows), arguments.tokenizer)
            above = peak.anonymous - idle.anonymous
            print(
                f"{megabytes:.0f} MB, {number} conversations, {made['tokens'] / 1e6:.1f} million tokens kept in "
                f"{made['seconds']:.0f} s: {above:.0f} MB anonymous (goal {GOAL_MB}), "
                f"{peak.pss - idle.pss:.0f} MB PSS beyond it at the peak",
                flush=True,
            )
    return 0


def idle_memory(folder: Path, tokenizer: Path) -> Memory:
    """Of a child that imported all and loaded the tokenizer."""
    with started(Path("none"), folder, tokenizer, "--idle") as child:
        assert child.stdout
        if child.stdout.readline().strip() != "ready":
            raise SystemExit("error: the child that only imports did not get ready")
        return memory_of(child.pid, pss=True)


def stage_memory(file: Path, folder: Path, tokenizer: Path) -> tuple[Memory, dict[str, float]]:
    """The peak of a child that runs the stage on `file`, and what it says about its run."""
    peak = Memory()
    with started(file, folder, tokenizer) as child:
        rounds = 0
        while child.poll() is None:
            peak = peak.highest(memory_of(child.pid, pss=rounds % PSS_EVERY == 0))
            rounds += 1
            time.sleep(PERIOD_S)
        assert child.stdout
        output = child.stdout.read()
    if child.returncode:
        raise SystemExit(f"error: the stage ended with {child.returncode}")
    return peak, json.loads(output.strip().splitlines()[-1])


@contextlib.contextmanager
def started(file: Path, folder: Path, tokenizer: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The child of both, which does not outlive the block."""
    command = [sys.executable, "-m", "tests.benchmarks.peers.hpcsft", str(file), "--folder", str(folder)]
    command += ["--tokenizer", str(tokenizer.resolve()), *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, env=environment(), text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def memory_of(pid: int, pss: bool) -> Memory:
    """Now; without `pss`, that part is 0. Processes that have just ended count nothing."""
    anonymous = share = 0.0
    for process in family(pid):
        status = fields(process / "status")
        anonymous += status.get("RssAnon", 0.0) + status.get("RssShmem", 0.0)
        share += fields(process / "smaps_rollup").get("Pss", 0.0) if pss else 0.0
    return Memory(anonymous, share)


def family(pid: int) -> list[Path]:
    """/proc folders of a process and of all below it."""
    try:
        threads = Path(f"/proc/{pid}/task").glob("*/children")
        children = [child for thread in threads for child in thread.read_text().split()]
    except OSError:
        return []
    return [Path(f"/proc/{pid}"), *(process for child in children for process in family(int(child)))]


def fields(file: Path) -> dict[str, float]:
    """The `Name: N kB` lines of a file under /proc, in MB."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in lines if words[-1:] == ["kB"]}


if __name__ == "__main__":
    sys.exit(main())
