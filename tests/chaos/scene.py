"""What the chaos happens to: a small model, synthetic dialogs, a spec, and two runs of it."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcsft.rundir import RunDir
from tests.cluster.minislurm import MiniSlurm
from tests.conftest import build_tiny_model
from tests.launch.command import launch

EPOCHS = 2
GLOBAL_BATCH, MICRO_BATCH = 8, 2  # on two ranks: two accumulation steps
MODEL = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "attention_dropout": 0.1,
}
TMPFS_MB = 256
RETRIES = {"node_failure": 1000, "rank_failure": 1000, "hang": 1000, "no_progress": 10}
"""More than any schedule needs: budgets are tested elsewhere."""


@dataclass
class Layout:
    """Where the ranks of the training job are."""

    nodes: int
    tasks_per_node: int


class Scene:
    """One folder: slurm/, model/, data.jsonl, spec.json, and the runs below reference/ and chaos/."""

    def __init__(self, root: Path, cluster: MiniSlurm, steps: int, every_steps: int, layout: Layout):
        self.root = root
        self.cluster = cluster
        self.every_steps = every_steps
        self.layout = layout
        self.rows = steps * GLOBAL_BATCH // EPOCHS

    def build(self) -> None:
        """Write model, data and spec."""
        dialogs = [make_dialog(random.Random(number)) for number in range(self.rows)]
        build_tiny_model(self.root / "model", dialogs[:200], **MODEL)
        rows = (json.dumps({"id": str(number), "data": turns}) for number, turns in enumerate(dialogs))
        (self.root / "data.jsonl").write_text("\n".join(rows) + "\n")
        held_out = [make_dialog(random.Random(f"held out {number}")) for number in range(16)]
        rows = (json.dumps({"id": str(number), "data": turns}) for number, turns in enumerate(held_out))
        (self.root / "validation.jsonl").write_text("\n".join(rows) + "\n")
        (self.root / "spec.json").write_text(json.dumps(self._spec(), indent=2))

    def submit(self, name: str) -> RunDir:
        """Submit the spec with launch/submit.py; the run lies below the folder `name`."""
        overrides = ("--set", f"runs_dir={self.root / name}")
        done = command("submit.py", "spec.json", *overrides, "--json", cwd=self.root)
        return RunDir(json.loads(done.stdout)["run_dir"])

    def mount(self, name: str) -> None:
        """Give the folder `name` a small filesystem of its own. Only inside a mount namespace of our own: it ends
        with the last process, whatever ends that."""
        (self.root / name).mkdir()
        options = ("-t", "tmpfs", "-o", f"size={TMPFS_MB}m", "chaos")
        subprocess.run(["mount", *options, str(self.root / name)], check=True)

    def keep(self, run: RunDir) -> Path:
        """Copy a run, without its checkpoints, from where it goes away to where it stays."""
        kept = self.root / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(run.path, kept, ignore=shutil.ignore_patterns("checkpoints", "code", "*.safetensors"))
        return kept

    def _spec(self) -> dict[str, Any]:
        return {
            "name": "chaos",
            "seed": 7,
            "model": {"path": str(self.root / "model"), "dtype": "bfloat16", "gradient_checkpointing": False},
            "data": {
                "train": [str(self.root / "data.jsonl")],
                "validation": [str(self.root / "validation.jsonl")],
                "max_length": 128,
                "overlong": "truncate",
                "packing": False,
            },
            "train": {
                "epochs": EPOCHS,
                "global_batch_size": GLOBAL_BATCH,
                "micro_batch_size": MICRO_BATCH,
                "learning_rate": 1e-3,
                "zero_stage": 2,
                "checkpoint": {"every_steps": self.every_steps, "keep_last": 2},
            },
            "evaluate": None,
            "cluster": {
                "kind": "slurm",
                "partition": "low",
                "cpus_per_task": 1,
                "time": "04:00:00",
                "env": {"OMP_NUM_THREADS": "1"},
                "retries": RETRIES,
                "train": {"nodes": self.layout.nodes, "tasks_per_node": self.layout.tasks_per_node},
            },
        }


def make_dialog(rng: random.Random) -> list[str]:
    """A question that nobody has asked before and its answer, of about 60 tokens."""
    a, b, thing = rng.randrange(1000, 10000), rng.randrange(1000), rng.choice(("pears", "nails", "books", "stars"))
    question = f"There are {a} {thing} in one heap and {b} in another. How many {thing} are there?"
    return [question, f"{a} and {b} make {a + b}, so there are {a + b} {thing}."]


def command(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run launch/SCRIPT, which must succeed."""
    done = launch(script, *arguments, cwd=cwd)
    if done.returncode:
        raise RuntimeError(f"{script} returned {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done
