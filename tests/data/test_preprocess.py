"""Guards that the training data is the same bytes however many tasks made it and however often they were killed, that
held-out conversations are held out, and that bad rows are counted, named, and never trained on.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcsft.data import making, sources
from hpcsft.data import preprocess as module
from hpcsft.data.batches import RowStore
from hpcsft.data.preprocess import preprocess
from hpcsft.data.shards import Manifest, map_batches, read_manifest
from hpcsft.data.splits import held_out
from hpcsft.errors import StageError, Stopped
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.provenance.hashing import InputHashing
from hpcsft.records import read_json, read_jsonl
from hpcsft.rundir import RunDir
from tests.data.encoding import encoder_of, rows_of
from tests.data.reference import long_dialogs
from tests.data.tokenizers import CHAT_TEMPLATES
from tests.prepared import begun, context_of, new_run

ROOT = Path(__file__).resolve().parents[2]
PER_SHARD = 9


@pytest.fixture
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(sources, "ROWS_PER_SHARD", PER_SHARD)
    monkeypatch.setattr(making, "CHUNK_CONVERSATIONS", 4)


def write_dialogs(path: Path, dialogs: list[Any]) -> str:
    """One UltraChat row per dialog; what is no list is written as it stands."""
    lines = [json.dumps({"data": d}, ensure_ascii=False) if isinstance(d, list) else d for d in dialogs]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def finished(run: RunDir, *indexes: int) -> RunDir:
    """`run` after the tasks `indexes` of preprocessing."""
    for index in indexes or (0,):
        preprocess(begun(run, "preprocess", index))
    return run


def made(run: RunDir) -> dict[str, bytes]:
    """What preprocessing left: name -> bytes. Files being written when a process was killed have a dot in front."""
    return {file.name: file.read_bytes() for file in run.data.iterdir() if not file.name.startswith(".")}


def conversations_in(run: RunDir, split: str) -> list[int]:
    """The number of each row's conversation in its source."""
    manifest = read_manifest(run.manifest)
    numbers = []
    for shard in manifest.shards:
        for batch in map_batches(run.data / shard.file):
            keys = batch.column("key").to_numpy()
            chosen = held_out(shard.source, keys, manifest.seed, manifest.validation_below) == (split == "validation")
            numbers += batch.column("conversation").to_numpy()[chosen].tolist()
    return numbers


def by_hand(run: RunDir, *, before: str = "", index: str = "") -> subprocess.CompletedProcess[str]:
    """`python jobs/preprocess.py RUN_DIR [INDEX]`, after the statements `before`."""
    script = str(ROOT / "jobs" / "preprocess.py")
    arguments = [script, str(run.path), *([index] if index else [])]
    code = f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r})\n{before}\nsys.argv = {arguments!r}\n"
    code += f"runpy.run_path({script!r}, run_name='__main__')"
    command = [sys.executable, "-c", code] if before else [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120)


def test_the_job_runs_by_hand_and_leaves_what_one_process_leaves(spec_values, tmp_path):
    spec_values["cluster"]["preprocess"] = {"tasks": 3}
    run = new_run(spec_values)
    done = by_hand(run)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "training rows" in done.stdout
    assert [run.read_status("preprocess", index, 3).state for index in range(3)] == ["done"] * 3
    for index in range(3):
        journal = read_jsonl(run.journal_file("preprocess", index, 3))
        assert [row["event"] for row in journal] == ["start", "done"]
    alone = finished(new_run({**spec_values, "runs_dir": str(tmp_path / "alone"), "cluster": {"kind": "local"}}))
    assert made(run) == made(alone)
    assert {path.stat().st_mode & 0o777 for path in (run.path, run.data)} == {0o700}


@pytest.mark.parametrize("validation", [0.2, "own files"])
def test_the_bytes_do_not_depend_on_the_number_of_tasks(spec_values, tmp_path, small_shards, conversations, validation):
    if validation == "own files":
        validation = [write_dialogs(tmp_path / "held-out.jsonl", conversations[200:225])]
    spec_values["data"].update(validation=validation, sample=100)
    runs = []
    for tasks in (1, 3):
        spec_values["cluster"]["preprocess"] = {"tasks": tasks}
        spec_values["data"]["cache"] = False  # or the second run would only link
        runs.append(finished(new_run(spec_values), *reversed(range(tasks))))
    assert made(runs[0]) == made(runs[1])
    manifest = read_manifest(runs[0].manifest)
    own = isinstance(validation, list)
    assert len(manifest.shards) == (14 + 3 if own else 14)
    assert manifest.counts["conversations_read"] == (100 + 25 if own else 100)
    assert {split for split in ("train", "validation") if manifest.total(split, "rows")} == {"train", "validation"}
    assert runs[0].path != runs[1].path


def test_only_the_last_task_writes_the_manifest(spec_values, small_shards):
    spec_values["cluster"]["preprocess"] = {"tasks": 3}
    run = finished(new_run(spec_values), 0, 2)
    assert not run.manifest.exists() and not run.audit.exists()
    assert finished(run, 1).manifest.exists()


def test_a_stage_that_is_told_to_stop_keeps_its_shards_and_makes_only_the_rest(spec_values, tmp_path, small_shards):
    whole = finished(new_run({**spec_values, "runs_dir": str(tmp_path / "whole")}))
    run = new_run(spec_values)
    context = context_of(run, "preprocess")
    told = []

    def say(text: str) -> None:
        told.append(text)
        context.notice.request("SIGUSR2")

    context.say = say
    with pytest.raises(Stopped, match=r"stopped by SIGUSR2 after 1 of 14 shards"):
        preprocess(context)
    assert told == ["shard train-00000 is whole"] and not run.manifest.exists()
    kept = {name: (run.data / name).stat().st_mtime_ns for name in made(run)}
    assert kept and made(run).items() <= made(whole).items()
    assert made(finished(run)) == made(whole)
    assert kept.items() <= {name: (run.data / name).stat().st_mtime_ns for name in made(run)}.items()


@pytest.mark.parametrize("cache", [True, False])
def test_a_kill_in_the_middle_costs_nothing_and_changes_nothing(spec_values, tmp_path, small_shards, cache):
    """SIGKILL after the rows of the sixth shard were written and before the mark that the shard is whole."""
    spec_values["data"]["cache"] = cache
    whole = finished(new_run({**spec_values, "runs_dir": str(tmp_path / "whole")}))
    run = new_run(spec_values)
    before = f"""
import os, signal
from hpcsft.data import making, shards, sources
sources.ROWS_PER_SHARD, making.CHUNK_CONVERSATIONS = {PER_SHARD}, 4
write_json = shards.write_json
def fatal(path, value):
    if path.name == "train-00005.json":
        os.kill(os.getpid(), signal.SIGKILL)
    write_json(path, value)
shards.write_json = fatal
"""
    assert by_hand(run, before=before).returncode == -signal.SIGKILL
    assert run.read_status("preprocess", 0, 1).state == "running"
    assert not run.manifest.exists()
    kept = {name: os.stat(run.data / name).st_mtime_ns for name in made(run)}
    assert sorted(name for name in kept if name.endswith(".json")) == [f"train-{n:05d}.json" for n in range(5)]
    assert ("train-00005.arrow" in kept) is not cache
    finished(run)
    assert made(run) == made(whole)
    redone = [name for name, time in kept.items() if os.stat(run.data / name).st_mtime_ns != time]
    assert all(name.startswith("train-00005.") for name in redone)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.37, 0.999])
def test_the_validation_share_is_held_out(spec_values, tmp_path, small_shards, conversations, share):
    dialogs = long_dialogs(conversations)[:50]
    spec_values["data"].update(train=[write_dialogs(tmp_path / "a.jsonl", dialogs)], validation=share, max_length=200)
    run = finished(new_run(spec_values))
    train, held_out = conversations_in(run, "train"), conversations_in(run, "validation")
    assert len(train) > len(set(train))  # a long one is many rows, all of one split
    expected = min(49, max(1, round(share * 50))) if share else 0
    assert len(set(held_out)) == expected
    assert set(train) | set(held_out) == set(range(50)) and not set(train) & set(held_out)


def test_equal_conversations_are_never_in_both_splits(spec_values, tmp_path, small_shards, conversations):
    """Data sets hold doubles; a held-out one that was also learnt would make the validation loss a lie."""
    dialogs = conversations[:30] * 3
    file = tmp_path / "doubles.jsonl"
    rows = [json.dumps({"id": str(number), "data": texts}) + "\n" for number, texts in enumerate(dialogs)]
    file.write_text("".join(rows))
    spec_values["data"].update(train=[str(file)], validation=0.3, max_length=512)
    run = finished(new_run(spec_values))
    train, held_out = ({number % 30 for number in conversations_in(run, split)} for split in ("train", "validation"))
    same = {n for n in range(30) for m in range(n) if conversations[n] == conversations[m]}
    assert not (train - same) & (held_out - same)
    assert 20 <= len(conversations_in(run, "validation")) <= 34


def test_rows_are_those_of_their_conversations(spec_values, tmp_path, small_shards, conversations, tiny_model):
    dialogs = long_dialogs(conversations)[:50]
    spec_values["data"].update(train=[write_dialogs(tmp_path / "a.jsonl", dialogs)], max_length=200)
    run = finished(new_run(spec_values))
    expected = rows_of(encoder_of(load_tokenizer(str(tiny_model)), max_length=200), dialogs)
    found = {}
    for split in ("train", "validation"):
        store = RowStore(run.data, read_manifest(run.manifest), split)
        for row, number in enumerate(conversations_in(run, split)):
            ids, labels = (part.tolist() for part in store.row(row))
            found.setdefault(number, []).append((ids, labels, int(store.num_supervised[row])))
    assert sum(map(len, found.values())) == len(expected)
    for row in expected:
        assert found[row.conversation].pop(0) == (row.input_ids, row.labels, row.num_supervised)


def test_counts_agree_with_the_files(spec_values, small_shards):
    run = finished(new_run(spec_values))
    manifest = read_manifest(run.manifest)
    for split in ("train", "validation"):
        store = RowStore(run.data, manifest, split)
        assert manifest.total(split, "rows") == len(store) > 0
        assert manifest.total(split, "conversations") == len(set(conversations_in(run, split)))
        assert manifest.total(split, "tokens") == sum(store.lengths.tolist())
        assert manifest.total(split, "supervised_tokens") == sum(store.num_supervised.tolist())
        assert read_json(run.audit)["splits"][split]["tokens"] == sum(store.lengths.tolist())
    counts = manifest.counts
    assert counts["conversations_read"] == 120 == counts["conversations_kept"] + counts["conversations_dropped"]


def test_validation_from_files_of_its_own(spec_values, tmp_path, small_shards, conversations, tiny_model):
    held_out = conversations[300:320]
    spec_values["data"].update(validation=[write_dialogs(tmp_path / "v.jsonl", held_out)], max_length=512, sample=30)
    run = finished(new_run(spec_values))
    assert len(set(conversations_in(run, "train"))) == 30
    assert sorted(conversations_in(run, "validation")) == list(range(20))
    store = RowStore(run.data, read_manifest(run.manifest), "validation")
    expected = [row.input_ids for row in rows_of(encoder_of(load_tokenizer(str(tiny_model))), held_out)]
    assert [store.row(row)[0].tolist() for row in range(len(store))] == expected


BROKEN = ['{"data": ["no answer"]}', '{"data": ["a", "b"', '{"text": "of another kind"}']


def test_a_few_bad_rows_are_counted_and_named(spec_values, tmp_path, small_shards, conversations):
    rows = [*conversations[:40], BROKEN[0], *conversations[40:80], BROKEN[1], *conversations[80:97], BROKEN[2]]
    file = write_dialogs(tmp_path / "a.jsonl", rows)
    spec_values["data"].update(train=[file], validation=0, max_length=512)
    run = finished(new_run(spec_values))
    counts = read_manifest(run.manifest).counts
    assert (counts["conversations_read"], counts["conversations_quarantined"], counts["conversations_kept"]) == (
        100,
        3,
        97,
    )
    bad = list(read_jsonl(run.quarantine))
    assert [(row["file"], row["row"]) for row in bad] == [(file, 41), (file, 82), (file, 100)]
    assert [row["excerpt"] for row in bad] == BROKEN
    assert "without an answer" in bad[0]["reason"]
    assert "not valid JSON" in bad[1]["reason"] and "keys text are of no known format" in bad[2]["reason"]
    assert not set(conversations_in(run, "train")) & {40, 81, 99}


@pytest.mark.parametrize("allowed", [None, 0.0, 0.1])
def test_too_many_bad_rows_stop_the_stage(spec_values, tmp_path, small_shards, conversations, allowed):
    file = write_dialogs(tmp_path / "a.jsonl", [*conversations[:50], *BROKEN])
    spec_values["data"].update(train=[file], validation=0)
    if allowed is not None:
        spec_values["data"]["max_bad_share"] = allowed
    run = new_run(spec_values)
    if allowed == 0.1:
        assert finished(run).manifest.exists()
        return
    told = r"3 of 53 rows are no conversations, more than data\.max_bad_share 0(\.05)? allows; "
    with pytest.raises(StageError, match=told + r"the first: .*a\.jsonl, row 51: ") as error:
        finished(run)
    assert not run.manifest.exists()
    assert str(run.quarantine) in error.value.hint and len(list(read_jsonl(run.quarantine))) == 3


def test_no_training_row_left_is_an_error(spec_values):
    spec_values["data"].update(max_length=16, overlong="drop")
    run = new_run(spec_values)
    with pytest.raises(StageError, match="no training row is left after preprocessing"):
        finished(run)
    assert not run.manifest.exists()


def test_a_repaired_file_is_read_again(spec_values, tmp_path, small_shards, conversations):
    """What `too many bad rows` asks the user to do, and then to run the stage again."""
    file = write_dialogs(tmp_path / "a.jsonl", [*conversations[:30], *BROKEN])
    spec_values["data"].update(train=[file], validation=0)
    run = new_run(spec_values)
    with pytest.raises(StageError, match="3 of 33 rows"):
        finished(run)
    write_dialogs(tmp_path / "a.jsonl", conversations[:33])
    assert Manifest.model_validate(read_json(finished(run).manifest)).counts["conversations_quarantined"] == 0


def test_a_changed_file_replaces_what_was_made(spec_values, tmp_path, small_shards, conversations):
    """Also after the manifest was written: rows and manifest are those of a run that never saw the old file."""
    spec_values["data"].update(train=[write_dialogs(tmp_path / "a.jsonl", conversations[:40])])
    run = finished(new_run(spec_values))
    before = made(run)
    write_dialogs(tmp_path / "a.jsonl", conversations[40:80])
    fresh = finished(new_run({**spec_values, "runs_dir": str(tmp_path / "fresh")}))
    assert made(finished(run)) == made(fresh) != before
    assert read_manifest(run.manifest).counts["conversations_read"] == 40


def test_a_changed_file_that_another_run_has_read_already_is_not_missed(
    spec_values, tmp_path, small_shards, conversations
):
    """Then the run's new shards all come from the cache."""
    spec_values["data"].update(train=[write_dialogs(tmp_path / "a.jsonl", conversations[:40])])
    run = finished(new_run(spec_values))
    write_dialogs(tmp_path / "a.jsonl", conversations[40:80])
    other = finished(new_run({**spec_values, "name": "other"}))
    assert made(finished(run)) == made(other)


def test_training_does_without_what_the_validation_files_hold(spec_values, tmp_path, small_shards, conversations):
    held_out = write_dialogs(tmp_path / "v.jsonl", conversations[5:15])
    train = write_dialogs(tmp_path / "t.jsonl", conversations[:40])
    spec_values["data"].update(train=[train], validation=[held_out], max_length=512)
    manifest = read_manifest(finished(new_run(spec_values)).manifest)
    doubles = [texts for texts in conversations[:40] if texts in conversations[5:15]]
    assert manifest.counts["dropped_also_in_validation"] == len(doubles) >= 10
    assert manifest.counts["conversations_dropped"] == len(doubles)
    assert manifest.counts["conversations_kept"] == 50 - len(doubles)
    assert manifest.total("train", "conversations") == 40 - len(doubles)
    assert manifest.total("validation", "conversations") == 10
    run = RunDir(new_run(spec_values).path)
    assert len(RowStore(run.data, manifest, "train")) == manifest.total("train", "rows")


def test_a_template_that_is_edited_while_jobs_wait_changes_nothing(spec_values, tmp_path, small_shards):
    template = tmp_path / "own.jinja"
    template.write_text(CHAT_TEMPLATES["llama 2"])
    spec_values["data"]["template"] = str(template)
    spec_values["cluster"]["preprocess"] = {"tasks": 2}
    run = new_run(spec_values)
    preprocess(begun(run, "preprocess", 0))
    template.write_text("{{ raise_exception('other') }}")
    preprocess(begun(run, "preprocess", 1))
    assert read_manifest(run.manifest).template == CHAT_TEMPLATES["llama 2"]


def test_training_says_when_shards_are_of_other_data(spec_values, tmp_path, small_shards, conversations):
    """A file that changed between two tasks of the array: none of them could know that it was the last."""
    file = write_dialogs(tmp_path / "a.jsonl", conversations[:40])
    spec_values["data"]["train"] = [file]
    spec_values["cluster"]["preprocess"] = {"tasks": 2}
    run = new_run(spec_values)
    preprocess(begun(run, "preprocess", 0))
    write_dialogs(tmp_path / "a.jsonl", conversations[40:80])
    preprocess(begun(run, "preprocess", 1))
    assert not run.manifest.exists()
    with pytest.raises(
        StageError, match="shards were made of other data or by other rules than there are now"
    ) as error:
        module.finish(begun(run, "train"))
    assert f"python jobs/preprocess.py {run.path}" in error.value.hint
    finished(run, 0)
    module.finish(begun(run, "train"))
    assert read_manifest(run.manifest).counts["conversations_read"] == 40


def test_a_stage_whose_shards_are_whole_does_not_come_back_for_digests(spec_values, monkeypatch):
    """On a slow filesystem attempt after attempt would end before anything new was saved, and with the last the run."""
    run = new_run(spec_values)

    def finish(self: InputHashing, between: Callable[[], None]) -> None:
        raise Stopped("stopped by the time limit after 1 of 1 shards")

    monkeypatch.setattr(InputHashing, "finish", finish)
    preprocess(context_of(run, "preprocess"))
    assert run.manifest.exists()


def test_the_cache_may_be_removed_while_it_is_used(spec_values, tmp_path, small_shards):
    whole = finished(new_run({**spec_values, "runs_dir": str(tmp_path / "whole")}))
    run = new_run(spec_values)
    context = begun(run, "preprocess")
    calls = []

    def remove() -> None:
        calls.append(1)
        if len(calls) % 5 == 2:
            shutil.rmtree(run.cache, ignore_errors=True)

    context.stop_if_asked = remove
    preprocess(context)
    assert made(run) == made(whole) and len(calls) > 10


def test_runs_share_what_was_made(spec_values, small_shards, conversations):
    """Other seeds and other held-out shares split the same rows in another way; other rules make other rows."""
    first = finished(new_run(spec_values))
    inodes = {file.name: file.stat().st_ino for file in first.data.glob("*.arrow")}

    def shared(**changes: Any) -> bool:
        values = {**spec_values, **changes, "data": {**spec_values["data"], **changes.get("data", {})}}
        run = finished(new_run(values))
        assert run.path != first.path
        found = {file.name: file.stat().st_ino for file in run.data.glob("*.arrow")}
        assert found == inodes or not set(found.values()) & set(inodes.values())
        return found == inodes

    assert shared(seed=8)
    assert shared(name="other", data={"validation": 0.5})
    assert shared(train={**spec_values["train"], "learning_rate": 1e-4})
    assert not shared(data={"mask": "last_turn"})
    assert not shared(data={"max_length": 65})
    assert not shared(data={"template": "chatml"})
    assert not shared(data={"sample": 50})
    assert not shared(data={"cache": False})


def test_a_run_does_without_a_cache_that_is_not_its_own(spec_values, tmp_path, small_shards, monkeypatch):
    whole = finished(new_run({**spec_values, "runs_dir": str(tmp_path / "whole")}))
    monkeypatch.setattr(module, "usable_cache", lambda folder: False)
    run = new_run(spec_values)
    told = []
    context = begun(run, "preprocess")
    context.say = told.append
    preprocess(context)
    assert made(run) == made(whole) and not run.cache.exists()
    assert told[0] == f"no access to {run.cache}: shards are made for this run alone"


def test_a_run_outlives_the_cache(spec_values, small_shards):
    run = finished(new_run(spec_values))
    before = made(run)
    shutil.rmtree(run.cache)
    assert made(run) == before
    again = finished(new_run({**spec_values, "name": "again"}))
    assert made(again) == before


def test_another_tokenizer_gets_rows_of_its_own(spec_values, tmp_path, small_shards, conversations):
    """Where the model lies does not matter: variants of one tokenizer share rows."""
    first = finished(new_run(spec_values))
    model = Path(spec_values["model"]["path"])
    for name, change in (("moved", False), ("changed", True)):
        folder = shutil.copytree(model, tmp_path / name)
        if change:
            settings = json.loads((folder / "tokenizer.json").read_text())
            settings["model"]["merges"] = settings["model"]["merges"][:-40]
            (folder / "tokenizer.json").write_text(json.dumps(settings))
        run = finished(new_run({**spec_values, "model": {**spec_values["model"], "path": str(folder)}}))
        shards = (data / "train-00000.arrow" for data in (run.data, first.data))
        assert (len({file.stat().st_ino for file in shards}) == 1) is not change


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_tasks_that_are_killed_at_random_leave_the_same_bytes(spec_values, tmp_path, small_shards, seed):
    """Tasks of one array at once, some of them beside another run that makes the same shards in the same cache."""
    chance = random.Random(seed)
    spec_values["data"]["cache"] = bool(seed)
    whole = finished(new_run({**spec_values, "runs_dir": str(tmp_path / "whole")}))
    spec_values["cluster"]["preprocess"] = {"tasks": 3}
    runs = [new_run({**spec_values, "name": name}) for name in ("first", "second")][: 1 + bool(seed)]
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from hpcsft.data import making, sources
from hpcsft.data import preprocess as module
from hpcsft.data.preprocess import preprocess
from hpcsft.rundir import RunDir
from tests.prepared import begun
sources.ROWS_PER_SHARD, making.CHUNK_CONVERSATIONS = {PER_SHARD}, 4
preprocess(begun(RunDir(sys.argv[1]), "preprocess", int(sys.argv[2])))
"""
    kills = planned = 10 if seed else 4
    waiting = [(run, index) for run in runs for index in range(3)]
    while waiting:
        tasks = [
            subprocess.Popen([sys.executable, "-c", code, str(run.path), str(index)], stderr=subprocess.DEVNULL)
            for run, index in waiting[:3]
        ]
        again = []
        for task, (run, index) in zip(tasks, waiting[:3], strict=True):
            if kills and chance.random() < 0.7:
                kills -= 1
                before = len(list(tmp_path.rglob("train-*.arrow")))
                enough = before + chance.randrange(4)
                while task.poll() is None and len(list(tmp_path.rglob("train-*.arrow"))) < enough:
                    time.sleep(0.005)
                task.kill()
            if task.wait(60):
                again.append((run, index))
        waiting = waiting[3:] + again
    for run in runs:
        assert made(run) == made(whole)
    assert kills < planned
