"""A real training whose nodes went away without a word, against the clock of whoever watched."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest

from hpcsft.records import read_jsonl
from hpcsft.usage import usage_of
from hpcsft.usage.attempts import milliseconds
from hpcsft.usage.text import usage_lines
from tests.train.ranks import finish, new_run, start
from tests.waiting import wait_for


def test_a_killed_and_restarted_training(spec_values: dict[str, Any], tmp_path) -> None:
    """Nobody writes the end of the first attempt; the second looks back when the first has long been gone."""
    run = new_run({**spec_values, "evaluate": None}, tmp_path, "train.epochs=2", "train.checkpoint.every_steps=4")
    journal = run.journal_file("train", 0, 1)

    def newest(rows: Iterable[dict[str, Any]]) -> int:
        return max((row["step"] for row in rows), default=0)

    def saved_and_gone_on() -> bool:
        saved = newest(row for row in read_jsonl(journal) if row["event"] == "saved")
        return 0 < saved < newest(read_jsonl(run.metrics))

    ranks = start(run, world_size=1, restart=0)
    try:
        wait_for("steps after a save", saved_and_gone_on, timeout_s=120)
    finally:
        killed_s = time.time()
        for rank in ranks:
            rank.kill()
        finish(ranks)
    open_usage = usage_of(run).stages[-1]
    assert not open_usage.done and open_usage.hours.lost == 0
    ranks = start(run, world_size=1, restart=1)
    outputs = finish(ranks)
    assert [rank.returncode for rank in ranks] == [0], outputs

    usage = usage_of(run)
    found = usage.stages[-1]
    rows = list(read_jsonl(journal))
    assert found.restarts == {next(row["cause"] for row in rows if row["event"] == "end"): 1}
    assert found.steps_again == sum(row["lost_steps"] for row in rows if row["event"] == "resumed")
    first_s, second_s = (milliseconds(row["time"]) / 1000 for row in rows if row["event"] == "start")
    done_s = milliseconds(rows[-1]["time"]) / 1000
    ran_s = (killed_s - first_s) + (done_s - second_s)
    assert ran_s - 3 < found.allocated_s < ran_s + 0.5, "the last sign of life is about a second old"
    assert found.requeue_s > second_s - killed_s - 0.5, "though its end was written just before the second start"
    hours = found.hours
    assert hours.total == pytest.approx(found.allocated_s / 3600)
    assert hours.computed + hours.lost + hours.waiting == pytest.approx(hours.total)
    steps_s = sum(row["tokens"] / row["tokens_per_s"] for row in read_jsonl(run.metrics))
    assert hours.parts["work"] + hours.parts.get("data", 0) == pytest.approx(steps_s / 3600, rel=0.05)
    assert hours.parts["start_again"] > 0 and hours.parts["start"] > 0 and hours.parts["epoch_ends"] > 0
    assert found.memory_gb and found.memory_gb > 0.1
    assert usage_lines(usage)[-1].startswith("total")
