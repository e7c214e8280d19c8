"""Another number of ranks: what 2 ranks saved goes on on 1, and from there on 4, as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcsft.errors import StageError
from hpcsft.records import read_json, write_json
from hpcsft.spec.load import _apply
from hpcsft.train import universal
from hpcsft.train.conversion import SOURCE, Conversion
from hpcsft.train.distributed import Ranks
from tests.conftest import build_tiny_model
from tests.prepared import context_of, new_run
from tests.train.universal_chain import SAVES, found_file, marker

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 600

CASES = {
    "zero-0": [],
    "zero-1-bfloat16": ["model.dtype=bfloat16"],
    "zero-2": [],
    # Several sub groups, and parameters on both sides of the threshold from which on they are divided.
    "zero-3": [
        "train.deepspeed.zero_optimization.sub_group_size=5000",
        "train.deepspeed.zero_optimization.stage3_param_persistence_threshold=1000",
    ],
}


@pytest.fixture(scope="module")
def chain(
    tmp_path_factory: pytest.TempPathFactory, conversations: list[list[str]], ultrachat_file: Path
) -> dict[str, dict[str, Any]]:
    """What the ranks of each phase found in every case. The sizes are odd: flat states need padding."""
    sizes = {
        "vocab_size": 603,
        "hidden_size": 30,
        "intermediate_size": 77,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
    }
    model = build_tiny_model(tmp_path_factory.mktemp("odd-sizes"), conversations, **sizes)
    runs = {}
    for name, overrides in CASES.items():
        values = {
            "name": name,
            "runs_dir": str(tmp_path_factory.mktemp("runs")),
            "model": {"path": str(model), "dtype": "float32", "gradient_checkpointing": False},
            "data": {"train": [str(ultrachat_file)], "max_length": 64},
            "train": {"global_batch_size": 8, "micro_batch_size": 1, "learning_rate": 1e-2, "weight_decay": 0.1},
            "cluster": {"kind": "local", "cpus_per_task": 1, "train": {"tasks_per_node": 2}},
        }
        for override in [f"train.zero_stage={name.split('-')[1]}", *overrides]:
            _apply(values, override)
        runs[name] = new_run(values).path
    command = [sys.executable, "-m", "tests.train.universal_chain", *map(str, runs.values())]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: {phase: read_json(run / found_file(phase)) for phase in SAVES} for name, run in runs.items()}


@pytest.mark.parametrize("name", CASES)
def test_goes_on_with_other_ranks(chain: dict[str, dict[str, Any]], name: str) -> None:
    undisturbed = chain[name]["2"]["losses"]
    tolerance = 1e-3 if "bfloat16" in name else 1e-6  # the order of sums differs; bfloat16 has 8 bits
    for phase, start in (("1", 2), ("4", 4)):
        found = chain[name][phase]
        assert found["differ"] == [], f"not bit-equal after the load on {phase} ranks"
        assert found["losses"] == pytest.approx(undisturbed[start : start + 2], rel=tolerance)
        assert found["adam_steps"] == [SAVES[phase]]
        assert found["left"] == [], "the converted folder stays"


def test_a_request_to_stop_ends_a_conversion(chain: dict[str, dict[str, Any]]) -> None:
    assert chain["zero-2"]["1"]["stopped"]


def test_conversion_is_redone_for_another_source_and_its_failure_is_told(tmp_path: Path) -> None:
    source, destination = tmp_path / "step-000002", tmp_path / ".universal-step-000002"
    source.mkdir()
    destination.mkdir()
    write_json(destination / SOURCE, {"digest": "of this one"})
    assert Conversion(source, destination, "of this one").poll()
    conversion = Conversion(source, destination, "of another one")
    with pytest.raises(StageError, match=r"step-000002 cannot be converted .*can't find \*_optim_states.pt"):
        while not conversion.poll():
            pass
    conversion.end()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]


def test_conversion_outlives_the_signals_of_slurm_but_not_a_kill(tmp_path: Path) -> None:
    (tmp_path / "step-000002").mkdir()
    conversion = Conversion(tmp_path / "step-000002", tmp_path / ".universal-step-000002", "")
    assert not conversion.poll(0)
    child = conversion._child
    assert child
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL):
        child.send_signal(number)
    with pytest.raises(MemoryError, match="step-000002 was killed"):
        conversion.poll(TIMEOUT_S)
    conversion.end()


@pytest.mark.parametrize("key", ["round_robin_gradients", "elastic_checkpoint"])
def test_what_cannot_be_converted_is_named(spec_values: dict[str, Any], key: str, tmp_path: Path) -> None:
    values = deepcopy(spec_values)
    values["train"] |= {"zero_stage": 2, "deepspeed": {"zero_optimization": {key: True}}}
    context = context_of(new_run(values), "train")
    with pytest.raises(StageError, match=rf"written by 2 ranks, this job has 1; DeepSpeed .*zero_optimization.{key}"):
        universal.load(None, context, Ranks(0, 1, torch.device("cpu")), tmp_path / "step-000002", marker(context, 2))
