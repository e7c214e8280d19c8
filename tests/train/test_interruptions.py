"""Training interrupted again and again, with notice and without, ends with the very bits of an undisturbed one."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from hpcsft.errors import EXIT_FENCED, EXIT_STOPPED
from hpcsft.records import read_jsonl
from hpcsft.rundir import RunDir
from tests.conftest import build_tiny_model
from tests.train.ranks import TIMEOUT_S, finish, new_run, start, train
from tests.train.test_loop import exports, losses

EVERY_STEPS = 7


@pytest.fixture(scope="session")
def dropout_model(tmp_path_factory: pytest.TempPathFactory, conversations: list[list[str]]) -> Path:
    """The tiny model with dropout, so that every rank's random numbers matter."""
    return build_tiny_model(tmp_path_factory.mktemp("dropout-model"), conversations, attention_dropout=0.2)


@pytest.fixture
def values(spec_values: dict[str, Any], dropout_model: Path) -> dict[str, Any]:
    """Training with dropout, accumulation over two micro batches per rank, and a checkpoint now and then."""
    spec_values.pop("evaluate")
    spec_values["model"]["path"] = str(dropout_model)
    spec_values["train"].update(checkpoint={"every_steps": EVERY_STEPS})
    return spec_values


def interrupt(run: RunDir, steps: int, number: signal.Signals, targets: list[int]) -> None:
    """Train for `steps` new steps, signal the ranks `targets`, and wait for the end of all."""
    before = len(_resumed(run))
    ranks = start(run, world_size=2)
    deadline_s = time.monotonic() + TIMEOUT_S

    def new_steps() -> int:
        resumed = _resumed(run)
        if len(resumed) == before:
            return 0
        return max((row["step"] for row in read_jsonl(run.metrics)), default=0) - resumed[-1]

    try:
        while new_steps() < steps:
            assert all(rank.poll() is None for rank in ranks), ranks[0].communicate()[0]
            assert time.monotonic() < deadline_s
            time.sleep(0.002)
        for target in targets:
            ranks[target].send_signal(number)
        if number == signal.SIGKILL:  # what is left of them may hang on for a while
            time.sleep(0.01)
            _kill(ranks)
        outputs = finish(ranks)
        if number != signal.SIGKILL:
            assert [rank.returncode for rank in ranks] == [EXIT_STOPPED] * 2, outputs
    finally:
        _kill(ranks)


def _resumed(run: RunDir) -> list[int]:
    """The step from which each attempt went on."""
    rows = read_jsonl(run.journal_file("train", 0, 1))
    return [row["step"] for row in rows if row["event"] == "resumed"]


def _kill(ranks: list[subprocess.Popen[str]]) -> None:
    for rank in ranks:
        rank.kill()


def interrupted_often(values: dict[str, Any], folder: Path, zero_stage: int, times: int) -> None:
    """Train once undisturbed and once interrupted `times` times, and compare everything."""
    overrides = (f"train.zero_stage={zero_stage}", f"train.epochs={2 * times}")  # an interruption comes some steps late
    whole = new_run(values, folder / "whole", *overrides)
    train(whole)

    run = new_run(values, folder / "interrupted", *overrides)
    chance = random.Random(zero_stage)
    for _ in range(times):
        with_notice = chance.random() < 0.5
        number = signal.SIGTERM if with_notice else signal.SIGKILL
        interrupt(run, chance.randint(1, 6), number, targets=[chance.randrange(2)])
    train(run)
    assert losses(run) == losses(whole)
    assert exports(run) == exports(whole) and len(exports(whole)) == 2 * times

    attempts = _attempts(run)
    assert len(attempts) == times + 1
    for before, after in itertools.pairwise(attempts):
        told = any(row["event"] == "stopped" for row in before)
        lost = next(row["lost_steps"] for row in after if row["event"] == "resumed")
        assert lost == 0 if told else lost <= 2 * EVERY_STEPS


def _attempts(run: RunDir) -> list[list[dict[str, Any]]]:
    """The journal's lines of training, by attempt."""
    found: list[list[dict[str, Any]]] = []
    for row in read_jsonl(run.journal_file("train", 0, 1)):
        if row["event"] == "start":
            found.append([])
        found[-1].append(row)
    return found


def test_a_signal_to_one_rank_and_a_kill_change_no_bit(values: dict[str, Any], tmp_path: Path) -> None:
    interrupted_often(values, tmp_path, zero_stage=2, times=2)


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_ten_interruptions_change_no_bit(zero_stage: int, values: dict[str, Any], tmp_path: Path) -> None:
    interrupted_often(values, tmp_path, zero_stage, times=10)


def zombies(values: dict[str, Any], folder: Path, times: int) -> None:
    """Freeze an attempt at some moment, let the next one take over, thaw the old one while the new one trains."""
    often = "cluster.retries.node_failure=100"
    run = new_run(values, folder, "train.checkpoint.every_steps=3", "train.epochs=40", often)
    chance = random.Random(times)
    old = start(run, world_size=2, restart=0)
    try:
        for restart in range(1, times + 1):
            _wait_for_event(run, restart - 1, "saved", count=chance.randint(1, 3))
            time.sleep(chance.random() * 0.2)  # anywhere between two saves, or inside of one
            for rank in old:
                rank.send_signal(signal.SIGSTOP)
            new = start(run, world_size=2, restart=restart)
            _wait_for_event(run, restart, chance.choice(["start", "resumed", "saved"]), count=1)
            for rank in old:
                rank.send_signal(signal.SIGCONT)
            outputs = finish(old)
            assert old[0].returncode == EXIT_FENCED, outputs
            old = new
        for rank in old:
            rank.send_signal(signal.SIGTERM)
        outputs = finish(old)
        assert [rank.returncode for rank in old] == [EXIT_STOPPED] * 2, outputs
    finally:
        _kill(old)
    newest = 0
    for row in read_jsonl(run.journal_file("train", 0, 1)):
        newest = max(newest, row["restart"]) if row["event"] == "start" else newest
        assert row["restart"] == newest, f"attempt {row['restart']} wrote after attempt {newest} had begun: {row}"
    steps = [row["step"] for row in read_jsonl(run.metrics)]
    assert steps == list(range(1, len(steps) + 1))


def _wait_for_event(run: RunDir, restart: int, event: str, count: int) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S

    def seen() -> int:
        rows = read_jsonl(run.journal_file("train", 0, 1))
        return sum(row["event"] == event and row["restart"] == restart for row in rows)

    while seen() < count:
        assert time.monotonic() < deadline_s, f"no {event} of attempt {restart}"
        time.sleep(0.01)


@pytest.mark.slow
def test_twenty_zombies_publish_nothing(values: dict[str, Any], tmp_path: Path) -> None:
    zombies(values, tmp_path, times=20)
