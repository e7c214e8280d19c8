"""A run that is ended by its steps: one epoch that ends there, and an interrupted one ends with the very same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcsft.records import read_jsonl
from tests.train.ranks import new_run, train, train_and_kill
from tests.train.test_loop import exports, losses

STEPS = 6


def test_it_ends_after_so_many_steps_and_a_kill_changes_no_bit(spec_values: dict[str, Any], tmp_path: Path) -> None:
    spec_values.pop("evaluate")
    spec_values["train"].update(epochs=1, max_steps=STEPS, global_batch_size=4, checkpoint={"every_steps": 2})
    whole = new_run(spec_values, tmp_path / "whole")
    assert f"starting: {STEPS} steps" in train(whole)
    rows = list(read_jsonl(whole.metrics))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6] and rows[-1]["epoch"] == 1
    assert rows[-1]["lr"] < 0.1 * rows[0]["lr"], "the course of the learning rate fits these steps"
    assert [row["epoch"] for row in read_jsonl(whole.validation)] == [0, 1]
    assert (whole.step_folder(STEPS) / "complete.json").exists() and len(exports(whole)) == 1

    killed = new_run(spec_values, tmp_path / "killed")
    train_and_kill(killed, after_step=3)
    train(killed)
    assert losses(killed) == losses(whole) and exports(killed) == exports(whole)
