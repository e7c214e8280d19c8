"""Checkpoints: only whole ones are loaded, damaged ones are passed over, old ones go after newer ones are there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcsft.records import read_json, read_jsonl
from hpcsft.rundir import RunDir
from hpcsft.train.checkpoints import find_checkpoint
from tests import prepared
from tests.conftest import make_spec_values
from tests.train.ranks import new_run, train
from tests.train.saving import damage, fence, save, whole


@pytest.fixture(scope="module")
def trained(
    tiny_model: Path, ultrachat_file: Path, prompts_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDir:
    """A run of one epoch with checkpoints at steps 2, 4, ... of which two are kept."""
    folder = tmp_path_factory.mktemp("trained")
    values = make_spec_values(tiny_model, ultrachat_file, prompts_file, folder)
    values.pop("evaluate")
    values["data"]["sample"] = 40
    values["train"].update({"epochs": 1, "checkpoint": {"every_steps": 2, "keep_last": 2}})
    run = new_run(values, folder)
    train(run)
    return run


@pytest.fixture
def finished(trained: RunDir, tmp_path: Path) -> RunDir:
    """A copy of that run, to be damaged."""
    shutil.copytree(trained.path, tmp_path / "run")
    return RunDir(tmp_path / "run")


def folders(run: RunDir) -> list[Path]:
    return sorted(run.checkpoints.glob("step-*"))


def test_what_is_published_is_whole_and_only_the_last_are_kept(finished: RunDir) -> None:
    kept = folders(finished)
    assert len(kept) == 2
    assert (finished.checkpoints / "latest").read_text().strip() == kept[-1].name
    assert not [name for folder in finished.checkpoints.glob(".*") for name in folder.iterdir()]
    for folder in kept:
        files = read_json(folder / "complete.json")["files"]
        assert set(files) == {path.name for path in folder.iterdir()} - {"complete.json"}
        assert all((folder / name).stat().st_size == facts["size_bytes"] for name, facts in files.items())


def test_a_flipped_bit_is_found_and_the_checkpoint_before_is_used(finished: RunDir) -> None:
    before, newest = folders(finished)
    losses = [row["loss"] for row in read_jsonl(finished.metrics)]
    damaged = next(newest.glob("*model_states.pt"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    output = train(finished)
    assert f"checkpoint {newest.name} is damaged" in output
    assert f"resumed after step {int(before.name.removeprefix('step-'))}" in output
    assert [row["loss"] for row in read_jsonl(finished.metrics)] == losses


def test_a_checkpoint_without_its_marker_does_not_exist(finished: RunDir) -> None:
    before, newest = folders(finished)
    (newest / "complete.json").unlink()
    assert f"resumed after step {int(before.name.removeprefix('step-'))}" in train(finished)


class OneRank:
    """Agrees with itself."""

    rank, world_size, leader = 0, 1, True

    def from_leader(self, act: Callable[[], Any]) -> Any:
        return act()

    def all_agree(self, mine: bool) -> bool:
        return mine


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("next_step", [5, 7])
def test_a_damaged_checkpoint_does_not_take_the_place_of_a_whole_one(
    spec_values: dict[str, Any], next_step: int, keep: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training falls back from step 6 and is stopped soon after: what it saves then must not be pruned for it."""
    run = prepared.new_run(spec_values)
    for step in (4, 6):
        save(run, step, fence(run))
    damage(run.step_folder(6) / "common.pt")
    context = prepared.context_of(run, "train")
    found = find_checkpoint(context, OneRank())
    assert found and found.complete.step == 4
    assert "checkpoint step-000006 is damaged (common.pt); falling back" in capsys.readouterr().out
    save(run, next_step, context.fence, keep)
    assert whole(run) == [next_step, 4][:keep]
    assert not run.step_folder(6).exists()


def test_on_another_number_of_ranks_the_states_are_converted(finished: RunDir) -> None:
    before, newest = folders(finished)
    losses = [row["loss"] for row in read_jsonl(finished.metrics)]
    shutil.rmtree(newest)
    assert f"resumed after step {int(before.name.removeprefix('step-'))}" in train(finished, world_size=1)
    assert [row["loss"] for row in read_jsonl(finished.metrics)] == pytest.approx(losses, rel=1e-6)


def test_a_finished_training_is_not_done_again(finished: RunDir) -> None:
    rows = finished.metrics.read_bytes()
    marks = [(path, path.stat().st_mtime_ns) for path in sorted(finished.models.rglob("*"))]
    train(finished)
    assert finished.metrics.read_bytes() == rows
    assert [(path, path.stat().st_mtime_ns) for path in sorted(finished.models.rglob("*"))] == marks
