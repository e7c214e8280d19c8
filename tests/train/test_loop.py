"""Training: the numbers are those of plain PyTorch, and an interrupted run ends with the very same bits."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from hpcsft.data.batches import RowStore
from hpcsft.data.shards import read_manifest
from hpcsft.records import read_json, read_jsonl, write_json
from hpcsft.rundir import RunDir
from tests.train.plain import padded, train_plainly
from tests.train.ranks import fail, new_run, train, train_and_kill

OFTEN = {("false", 4, 1)}
"""Of the ways to lay out the same work, those that are tried every time."""


@pytest.fixture
def short(spec_values: dict[str, Any]) -> dict[str, Any]:
    """Two epochs of a few steps, without evaluation."""
    spec_values.pop("evaluate")
    spec_values["train"]["checkpoint"] = {"every_steps": 4}
    spec_values["data"]["sample"] = 60
    return spec_values


def losses(run: RunDir) -> list[tuple[int, str]]:
    return [(row["step"], float(row["loss"]).hex()) for row in read_jsonl(run.metrics)]


def exports(run: RunDir) -> list[str]:
    files = sorted(run.models.glob("epoch-*/model.safetensors"))
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_losses_are_those_of_plain_pytorch_and_a_kill_changes_no_bit(
    zero_stage: int, short: dict[str, Any], tmp_path: Path
) -> None:
    stage = f"train.zero_stage={zero_stage}"
    whole = new_run(short, tmp_path / "whole", stage)
    train(whole)
    reference = train_plainly(whole)
    assert len(reference.losses) >= 8
    rows = list(read_jsonl(whole.metrics))
    assert [row["loss"] for row in rows] == pytest.approx(reference.losses, rel=1e-5)
    assert [row["grad_norm"] for row in rows] == pytest.approx(reference.grad_norms, rel=1e-5)

    killed = new_run(short, tmp_path / "killed", stage)
    train_and_kill(killed, after_step=6)
    assert re.search(r"resumed after step [1-9]", train(killed))
    assert losses(killed) == losses(whole)
    assert exports(killed) == exports(whole) and len(exports(whole)) == 2


WAYS = [
    pytest.param(
        packing, accumulation, ranks, marks=() if (packing, accumulation, ranks) in OFTEN else pytest.mark.slow
    )
    for packing in ("true", "false")
    for accumulation in (1, 4)
    for ranks in (1, 2)
]


@pytest.mark.parametrize(("packing", "accumulation", "ranks"), WAYS)
def test_twenty_steps_are_those_of_plain_pytorch(packing, accumulation, ranks, short, tmp_path):
    """Losses, gradients and weights of padded rows, however the same work is laid out."""
    short["data"]["sample"] = 1.0
    options = [
        f"data.packing={packing}",
        f"train.global_batch_size={2 * accumulation * ranks}",
        f"cluster.train.tasks_per_node={ranks}",
        f"train.epochs={5 if accumulation * ranks > 4 else 3}",
        "train.learning_rate=1e-4",
        "train.checkpoint.every_steps=1000",
        "data.validation=0",
    ]
    run = new_run(short, tmp_path, *options)
    train(run, ranks)
    rows = list(read_jsonl(run.metrics))
    plain = train_plainly(run)
    assert len(rows) == len(plain.losses) >= 20
    assert [row["loss"] for row in rows] == pytest.approx(plain.losses, rel=1e-5)
    assert [row["grad_norm"] for row in rows] == pytest.approx(plain.grad_norms, rel=1e-4)
    start = transformers.AutoModelForCausalLM.from_pretrained(short["model"]["path"], dtype=torch.float32)
    learnt = load_file(sorted(run.models.glob("epoch-*"))[-1] / "model.safetensors")
    for name, before in start.named_parameters():
        moved = (plain.weights[name] - before).norm()
        assert moved > 0 and (learnt[name] - plain.weights[name]).norm() < 1e-3 * moved, name


def test_without_zero_bfloat16_learns_what_it_does_with_zero(short: dict[str, Any], tmp_path: Path) -> None:
    """DeepSpeed begins Adam one step too high there, which would show in every loss, and decays the weights once."""
    options = ("model.dtype=bfloat16", "train.weight_decay=0.5", "cluster.train.tasks_per_node=1", "train.epochs=1")
    measured = []
    for stage in (0, 1):
        run = new_run(json.loads(json.dumps(short)), tmp_path / str(stage), f"train.zero_stage={stage}", *options)
        train(run, 1)
        measured.append([row["loss"] for row in read_jsonl(run.metrics)])
    assert len(measured[0]) >= 4
    assert measured[0] == pytest.approx(measured[1], rel=1e-4)


def test_without_master_weights_steps_are_those_of_a_bfloat16_optimizer(short: dict[str, Any], tmp_path: Path) -> None:
    """Most of them change nothing, which is why there is a warning."""
    options = ["model.dtype=bfloat16", "train.master_weights=false", "train.learning_rate=1e-5", "train.epochs=1"]
    run = new_run(short, tmp_path, *options, "cluster.train.tasks_per_node=1", "train.zero_stage=1")
    train(run, 1)
    plain = train_plainly(run)
    learnt = load_file(run.epoch_model(1) / "model.safetensors")
    assert 0 < plain.changed[0] < 0.3, "the share of the weights that one step changes"
    different = sum(int((learnt[name] != plain.weights[name]).sum()) for name in learnt)
    assert different < 0.02 * sum(map(torch.numel, learnt.values()))


def test_bfloat16_resumes_with_the_same_bits(short: dict[str, Any], tmp_path: Path) -> None:
    options = ("model.dtype=bfloat16", "model.gradient_checkpointing=true", "train.micro_batch_size=1")
    whole = new_run(short, tmp_path / "whole", *options)
    train(whole)
    killed = new_run(short, tmp_path / "killed", *options)
    train_and_kill(killed, after_step=6)
    train(killed)
    assert losses(killed) == losses(whole)
    assert exports(killed) == exports(whole)


def test_the_exports_hold_what_was_learnt(short: dict[str, Any], tmp_path: Path) -> None:
    run = new_run(short, tmp_path, "train.zero_stage=3")
    assert "ready after" in train(run)
    (ready,) = [row for row in read_jsonl(run.journal_file("train", 0, 1)) if row["event"] == "ready"]
    assert {"imports", "rows", "model", "engine", "loading the checkpoint"} <= ready["phases_s"].keys()
    by_epoch = {row["epoch"]: row["loss"] for row in read_jsonl(run.validation)}
    assert set(by_epoch) == {0, 1, 2} and by_epoch[2] < by_epoch[1] < by_epoch[0]
    store = RowStore(run.data, read_manifest(run.manifest), "validation")
    for epoch in (1, 2):
        model = transformers.AutoModelForCausalLM.from_pretrained(run.epoch_model(epoch), dtype=torch.float32)
        total = 0.0
        for row in range(len(store)):
            ids, labels, _ = padded(store, [row])
            with torch.no_grad():
                total += model(input_ids=ids, labels=labels).loss.item() * store.supervised([row])
        assert total / store.supervised() == pytest.approx(by_epoch[epoch], rel=1e-5)
        assert transformers.AutoTokenizer.from_pretrained(run.epoch_model(epoch)).eos_token == "</s>"


def test_the_number_of_ranks_changes_neither_order_nor_losses(short: dict[str, Any], tmp_path: Path) -> None:
    measured = {}
    for world_size in (1, 2):
        values = json.loads(json.dumps(short))
        run = new_run(values, tmp_path / str(world_size), f"cluster.train.tasks_per_node={world_size}")
        train(run, world_size)
        measured[world_size] = [row["loss"] for row in read_jsonl(run.metrics)]
    assert measured[1] == pytest.approx(measured[2], rel=1e-5)


def test_training_finishes_a_manifest_that_no_task_could_write(short: dict[str, Any], tmp_path: Path) -> None:
    run = new_run(short, tmp_path, "train.epochs=1")
    before = run.manifest.read_bytes()
    run.manifest.unlink()
    train(run)
    assert run.manifest.read_bytes() == before


def test_training_without_data_says_which_stage_is_missing(short: dict[str, Any], tmp_path: Path) -> None:
    run = new_run(short, tmp_path)
    run.manifest.unlink()
    next(run.data.glob("train-*.json")).unlink()
    shutil.rmtree(run.cache)
    assert "run the stage 'preprocess' first" in fail(run)


def test_a_batch_that_does_not_fit_the_ranks_is_refused(short: dict[str, Any], tmp_path: Path) -> None:
    run = new_run(short, tmp_path)
    spec = read_json(run.spec)
    spec["train"]["global_batch_size"] = 6
    write_json(run.spec, spec)
    run.submitted.unlink()  # nothing to be held against
    assert "nearest: 4 or 8" in fail(run)


def test_all_ranks_tell_why_the_model_does_not_load(short: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    """Rank 0 alone reads it: the others would wait for its weights."""
    short["model"]["path"] = str(shutil.copytree(tiny_model, tmp_path / "model"))
    run = new_run(short, tmp_path)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    told = fail(run)
    assert told.count("error: ") == 2 and told.count("1 weights are missing, the first: model.norm.weight") == 2
