"""Training: the numbers are those of plain PyTorch, and an interrupted run ends with the very same bits."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from hpcsft.data.batches import RowStore
from hpcsft.data.order import TrainingOrder
from hpcsft.data.shards import read_manifest
from hpcsft.records import read_json, read_jsonl, write_json
from hpcsft.rundir import RunDir
from tests.train.ranks import fail, new_run, train, train_and_kill

STEPS = 12


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


def document(store: RowStore, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids, labels = (torch.tensor(column, dtype=torch.int64)[None] for column in store.row(row))
    return ids, labels


def plain_losses(run: RunDir) -> list[float]:
    """The same training in plain PyTorch: one document at a time, unpacked, AdamW, no DeepSpeed, one process."""
    spec = read_json(run.spec)
    settings = spec["train"]
    store = RowStore(run.data, read_manifest(run.manifest), "train")
    per_step = settings["global_batch_size"] // settings["micro_batch_size"]
    order = TrainingOrder(
        store.lengths, settings["micro_batch_size"], spec["data"]["max_length"], True, per_step, spec["seed"]
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(spec["model"]["path"], dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"], weight_decay=0.0)
    total = order.steps_per_epoch * settings["epochs"]
    found = []
    for step in range(total):
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * (1 + math.cos(math.pi * step / total)) / 2
        rows = [row for batch in order.step(step) for row in batch.tolist()]
        supervised = store.supervised(rows)
        loss_sum = 0.0
        optimizer.zero_grad()
        for row in rows:
            ids, labels = document(store, row)
            count = int((labels[0, 1:] != -100).sum())
            loss = model(input_ids=ids, labels=labels).loss * count
            (loss / supervised).backward()
            loss_sum += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        found.append(loss_sum / supervised)
    return found


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_losses_are_those_of_plain_pytorch_and_a_kill_changes_no_bit(
    zero_stage: int, short: dict[str, Any], tmp_path: Path
) -> None:
    stage = f"train.zero_stage={zero_stage}"
    whole = new_run(short, tmp_path / "whole", stage)
    train(whole)
    reference = plain_losses(whole)
    assert len(reference) >= 8
    measured = [row["loss"] for row in read_jsonl(whole.metrics)]
    assert measured == pytest.approx(reference, rel=1e-5)

    killed = new_run(short, tmp_path / "killed", stage)
    train_and_kill(killed, after_step=6)
    assert re.search(r"resumed after step [1-9]", train(killed))
    assert losses(killed) == losses(whole)
    assert exports(killed) == exports(whole) and len(exports(whole)) == 2


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
    train(run)
    by_epoch = {row["epoch"]: row["loss"] for row in read_jsonl(run.validation)}
    assert set(by_epoch) == {0, 1, 2} and by_epoch[2] < by_epoch[1] < by_epoch[0]
    store = RowStore(run.data, read_manifest(run.manifest), "validation")
    for epoch in (1, 2):
        model = transformers.AutoModelForCausalLM.from_pretrained(run.epoch_model(epoch), dtype=torch.float32)
        total = 0.0
        for row in range(len(store)):
            ids, labels = document(store, row)
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


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(short: dict[str, Any], tmp_path: Path) -> None:
    run = new_run(short, tmp_path, "train.learning_rate=1e30", "train.max_grad_norm=0")
    output = fail(run)
    assert "error: step 2 is not finite: loss" in output and "Traceback" not in output
    status = read_json(run.status_file("train", 0, 1))
    assert status["state"] == "failed" and status["message"].startswith("step 2 is not finite")
    assert not list(run.checkpoints.glob("step-*"))


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
    assert "nearest: 4 or 8" in fail(run)
