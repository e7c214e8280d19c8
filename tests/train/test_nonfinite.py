"""Guards that what is not finite is never learnt or saved, in real training: the run says where it was, and ends or
goes on past it on all ranks alike.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hpcsft.data.batches import RowStore
from hpcsft.data.shards import read_manifest
from hpcsft.records import read_json, read_jsonl
from hpcsft.rundir import RunDir
from tests.train.ranks import fail, new_run, train


def often_and_slow(*ways: tuple[str, str], often: int = 1) -> list[Any]:
    """ZeRO stages and types; DeepSpeed steps in as many ways. All but the first `often` are tried by `make slow`."""
    return [pytest.param(*way, marks=pytest.mark.slow if number >= often else ()) for number, way in enumerate(ways)]


PASSED_OVER = often_and_slow(("0", "float32"), ("3", "bfloat16"), ("1", "bfloat16"), ("2", "float32"), often=2)


@pytest.fixture
def short(spec_values: dict[str, Any]) -> dict[str, Any]:
    """A few steps without validation and evaluation."""
    spec_values.pop("evaluate")
    spec_values["train"] |= {"epochs": 1, "checkpoint": {"every_steps": 100}}
    spec_values["data"] |= {"sample": 40, "validation": 0}
    return spec_values


def poison(values: dict[str, Any], folder: Path) -> int:
    """Give the model norms without epsilon and an embedding of zeros for a token that stands in the data once: its loss
    is no number, though every weight is one. Returns the token."""
    source = Path(values["model"]["path"])
    model = Path(shutil.copytree(source, folder / "poisoned"))
    values["model"]["path"] = str(model)
    run = new_run(json.loads(json.dumps(values)), folder / "look")
    store = rows_of(run)
    counts = torch.bincount(torch.cat([torch.tensor(ids) for ids in all_ids(store)]), minlength=600)
    token = next(int(token) for token in range(5, 600) if counts[token] == 1)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False, "rms_norm_eps": 0.0}))
    weights = load_file(model / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    weights["model.embed_tokens.weight"][token] = 0.0
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    return token


def rows_of(run: RunDir) -> RowStore:
    return RowStore(run.data, read_manifest(run.manifest), "train")


def all_ids(store: RowStore) -> list[Any]:
    return [store.row(row)[0] for row in range(len(store))]


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_conversation(short, tmp_path):
    token = poison(short, tmp_path)
    run = new_run(short, tmp_path, "train.micro_batch_size=1", "data.packing=false")
    (guilty,) = [row for row, ids in enumerate(all_ids(rows_of(run))) if token in ids]
    output = fail(run)
    status = read_json(run.status_file("train", 0, 1))
    assert status["state"] == "failed" and "Traceback" not in output
    assert "its loss is nan in the micro batch of" in status["message"]
    assert status["message"].endswith(rows_of(run).names([guilty])[0])
    learnt = list(read_jsonl(run.metrics))
    assert all(math.isfinite(row["loss"]) for row in learnt)
    assert not list(run.checkpoints.glob("step-*"))


@pytest.mark.parametrize(("stage", "dtype"), PASSED_OVER)
def test_a_step_is_passed_over_where_the_spec_allows_it(stage, dtype, short, tmp_path):
    token = poison(short, tmp_path)
    run = new_run(short, tmp_path, f"train.zero_stage={stage}", f"model.dtype={dtype}", "train.max_skipped_steps=1")
    assert "is passed over (1 of at most 1): its loss is nan in the micro batch of row" in train(run)
    rows = list(read_jsonl(run.metrics))
    (skipped,) = [row for row in rows if row.get("skipped")]
    assert skipped["loss"] is None and skipped["grad_norm"] is None
    rates = [row["lr"] for row in rows]
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == len(rates), "the schedule goes on"
    weights = load_file(run.epoch_model(1) / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert not weights["model.embed_tokens.weight"][token].any(), "nothing of that step was learnt"


@pytest.mark.parametrize(("stage", "dtype"), often_and_slow(("3", "float32"), ("0", "bfloat16")))
def test_steps_are_passed_over_so_often_and_no_more(stage, dtype, short, tmp_path):
    """The first update throws the weights so far that gradients are infinite, though the loss is finite."""
    options = [f"train.zero_stage={stage}", f"model.dtype={dtype}", "train.max_grad_norm=0"]
    run = new_run(short, tmp_path, *options, "train.learning_rate=1e30", "train.max_skipped_steps=2")
    output = fail(run)
    assert "step 2 is passed over (1 of at most 2): its loss is 6." in output and "gradient norm is inf" in output
    assert "error: step 4 is not finite (2 were passed over before)" in output
    rows = list(read_jsonl(run.metrics))
    assert [row.get("skipped") for row in rows] == [None, True, True]
    assert rows[1]["grad_norm"] is None and math.isfinite(rows[1]["loss"])


@pytest.mark.parametrize(("stage", "dtype"), often_and_slow(("1", "float32"), ("0", "bfloat16"), ("3", "float32")))
def test_weights_that_are_not_finite_are_never_saved(stage, dtype, short, tmp_path):
    """The gradients of the first step were finite, what it made of the weights is not."""
    options = [f"train.zero_stage={stage}", f"model.dtype={dtype}", "train.checkpoint.every_steps=1"]
    run = new_run(short, tmp_path, *options, "train.learning_rate=1e39")
    assert "error: after step 1 the weights are not finite; nothing of them was saved" in fail(run)
    assert not list(run.checkpoints.glob("step-*"))
