"""Old checkpoints go, what training needs stays, and nothing in between looks like a checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpcsft import clean as module
from hpcsft.attempt.fence import Fence
from hpcsft.clean import checkpoints_to_keep, clean, cleaning_lines, plan_cleaning
from hpcsft.errors import HpcsftError
from hpcsft.rundir import RunDir
from hpcsft.train.commit import COMPLETE, file_facts, open_staging, publish, published, staging_folder
from tests.places import bare_run


class NoFence(Fence):
    """A run that nobody else works on."""

    def __init__(self) -> None: ...

    def check(self) -> None: ...


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run with checkpoints of the steps 5, 10 and 15, as training publishes them."""
    run = bare_run(tmp_path / "runs", "a-00000000")
    for step in (5, 10, 15):
        staged = staging_folder(run, "1_0", step)
        open_staging(staged)
        (staged / "states.pt").write_bytes(b"x" * 1000)
        publish(run, staged, 1, 2, {"states.pt": file_facts(staged / "states.pt")}, NoFence())
    return run


def names(run: RunDir) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


@pytest.mark.parametrize(
    ("state", "keep", "kept"),
    [("done", None, 0), ("done", 2, 2), ("failed", None, 1), ("cancelled", 3, 3), ("waiting", None, 1),
     ("unsubmitted", None, 1)],
)  # fmt: skip
def test_how_many_stay(state, keep, kept):
    assert checkpoints_to_keep(state, keep) == kept


@pytest.mark.parametrize("state", ["pending", "running"])
def test_training_that_is_held_by_the_queue_is_refused(state):
    with pytest.raises(HpcsftError, match=f"its training is {state}"):
        checkpoints_to_keep(state, 5)


def test_the_newest_of_an_unfinished_training_always_stays():
    with pytest.raises(HpcsftError, match="its training is failed: the newest checkpoint has to stay"):
        checkpoints_to_keep("failed", 0)


def test_all_but_the_newest_go(run):
    cleaning = plan_cleaning(run, 1)
    assert (cleaning.kept, cleaning.removed) == (["step-000015"], ["step-000010", "step-000005"])
    marker = (run.step_folder(5) / COMPLETE).stat().st_size
    freed = clean(run, cleaning)
    assert freed == cleaning.freed_bytes and abs(freed - 2 * (1000 + marker)) < 10
    assert names(run) == ["latest", "step-000015"]
    assert (run.checkpoints / "latest").read_text() == "step-000015\n"
    assert plan_cleaning(run, 1).empty


def test_where_training_is_done_all_go_and_models_stay(run):
    (run.epoch_model(1)).mkdir(parents=True)
    cleaning = plan_cleaning(run, 0)
    shown = "\n".join(cleaning_lines(run, cleaning, "done"))
    assert "remove  step-000015, step-000010, step-000005" in shown and "keep    models/epoch-1" in shown
    clean(run, cleaning)
    assert names(run) == [] and run.epoch_model(1).is_dir()


def test_what_kills_left_goes_too(run):
    for name in (".staging-2_0/step-000020", ".replaced-step-000010", ".universal-step-000010"):
        (run.checkpoints / name).mkdir(parents=True)
        (run.checkpoints / name / "states.pt").write_bytes(b"x" * 100)
    (run.step_folder(10) / COMPLETE).unlink()  # half removed
    cleaning = plan_cleaning(run, 3)
    assert cleaning.kept == ["step-000015", "step-000005"] and cleaning.removed == []
    assert cleaning.leftovers == [".replaced-step-000010", ".staging-2_0", ".universal-step-000010", "step-000010"]
    assert clean(run, cleaning) == 1300
    assert names(run) == ["latest", "step-000005", "step-000015"]


def test_a_checkpoint_whose_files_are_short_is_not_the_one_that_stays(run):
    (run.step_folder(15) / "states.pt").write_bytes(b"short")
    cleaning = plan_cleaning(run, 1)
    assert (cleaning.kept, cleaning.removed) == (["step-000010"], ["step-000015", "step-000005"])
    clean(run, cleaning)
    assert (run.checkpoints / "latest").read_text() == "step-000010\n"


def test_without_a_whole_one_nothing_that_could_be_loaded_goes(run):
    for step in (5, 10, 15):
        (run.step_folder(step) / "states.pt").unlink()
    cleaning = plan_cleaning(run, 1)
    assert cleaning.empty and len(cleaning.kept) == 3


def test_a_run_without_checkpoints(tmp_path):
    assert plan_cleaning(bare_run(tmp_path, "a-00000000"), 1).empty


def test_a_kill_at_any_moment_leaves_nothing_that_looks_like_a_checkpoint(run, monkeypatch):
    """Each removal is cut off after its first file; what is left then is whole, or not to be seen."""

    def cut_off(folder: Path) -> None:
        next(path for path in folder.rglob("*") if path.is_file()).unlink()
        raise OSError(4, "killed", str(folder))

    cleaning = plan_cleaning(run, 1)
    monkeypatch.setattr(shutil, "rmtree", cut_off)
    with pytest.raises(HpcsftError, match="killed") as caught:
        clean(run, cleaning)
    assert "0 B were freed before" in (caught.value.hint or "")
    assert [folder.name for folder, _ in published(run)] == ["step-000015", "step-000010"]
    assert module.torn(run) == []
    monkeypatch.undo()
    clean(run, plan_cleaning(run, 1))
    assert names(run) == ["latest", "step-000015"]
