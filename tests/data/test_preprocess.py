"""Guards that the training data is the same bytes however many tasks made it and however often they were killed, that
held-out conversations are held out, and that bad rows are counted, named, and never trained on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hpcsft.data import preprocess as module
from hpcsft.data.batches import RowStore
from hpcsft.data.preprocess import find_sources, preprocess, split_conversations
from hpcsft.data.readers import read_rows
from hpcsft.data.shards import Manifest, read_manifest
from hpcsft.errors import StageError, Stopped
from hpcsft.records import read_json, read_jsonl
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec
from tests.data.reference import long_dialogs, turns_of
from tests.data.rows import rows_of
from tests.prepared import begun, context_of, new_run

ROOT = Path(__file__).resolve().parents[2]
PER_SHARD = 9


@pytest.fixture
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(module, "CONVERSATIONS_PER_SHARD", PER_SHARD)
    monkeypatch.setattr(module, "ENCODE_CHUNK", 4)


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
    manifest = read_manifest(run.manifest)
    return [
        number
        for file in manifest.files(split)
        for number in pa.ipc.open_stream((run.data / file.file).read_bytes()).read_all()["conversation"].to_pylist()
    ]


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
        runs.append(finished(new_run(spec_values), *reversed(range(tasks))))
    assert made(runs[0]) == made(runs[1])
    manifest = read_manifest(runs[0].manifest)
    own = isinstance(validation, list)
    assert len(manifest.shards) == (14 + 3 if own else 14)
    assert manifest.counts["conversations_read"] == (100 + 25 if own else 100)
    assert {file.split for shard in manifest.shards for file in shard.files} == {"train", "validation"}
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


def test_a_kill_in_the_middle_costs_nothing_and_changes_nothing(spec_values, tmp_path, small_shards):
    """SIGKILL after the rows of the sixth shard were written and before the mark that the shard is whole."""
    whole = finished(new_run({**spec_values, "runs_dir": str(tmp_path / "whole")}))
    run = new_run(spec_values)
    before = f"""
import os, signal
import hpcsft.data.preprocess as module
module.CONVERSATIONS_PER_SHARD, module.ENCODE_CHUNK = {PER_SHARD}, 4
write_json = module.write_json
def fatal(path, value):
    if path.name == "train-00005.json":
        os.kill(os.getpid(), signal.SIGKILL)
    write_json(path, value)
module.write_json = fatal
"""
    assert by_hand(run, before=before).returncode == -signal.SIGKILL
    assert run.read_status("preprocess", 0, 1).state == "running"
    assert not run.manifest.exists()
    kept = {name: os.stat(run.data / name).st_mtime_ns for name in made(run)}
    assert sorted(name for name in kept if name.endswith(".json")) == [f"train-{n:05d}.json" for n in range(5)]
    assert "train-00005.train.arrow" in kept
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


def test_rows_are_those_of_their_conversations(spec_values, tmp_path, small_shards, conversations, tiny_model):
    dialogs = long_dialogs(conversations)[:50]
    spec_values["data"].update(train=[write_dialogs(tmp_path / "a.jsonl", dialogs)], max_length=200)
    run = finished(new_run(spec_values))
    expected = rows_of(tiny_model, dialogs, 200)
    found = {}
    for split in ("train", "validation"):
        store = RowStore(run.data, read_manifest(run.manifest), split)
        for row in store.rows:
            ids, labels = row["input_ids"].tolist(), row["labels"].tolist()
            found.setdefault(int(row["conversation"]), []).append((ids, labels, int(row["num_supervised"])))
    assert sum(map(len, found.values())) == len(expected)
    for row in expected:
        assert found[row.conversation].pop(0) == (row.input_ids, row.labels, row.num_supervised)


def test_counts_agree_with_the_files(spec_values, small_shards):
    run = finished(new_run(spec_values))
    manifest = read_manifest(run.manifest)
    for split in ("train", "validation"):
        store = RowStore(run.data, manifest, split)
        assert manifest.total(split, "rows") == len(store) > 0
        assert manifest.total(split, "tokens") == sum(store.lengths)
        assert manifest.total(split, "supervised_tokens") == sum(store.num_supervised)
        assert read_json(run.audit)["splits"][split]["tokens"] == sum(store.lengths)
    counts = manifest.counts
    assert counts["conversations_read"] == 120 == counts["conversations_kept"] + counts["conversations_dropped"]


def test_validation_from_files_of_its_own(spec_values, tmp_path, small_shards, conversations, tiny_model):
    held_out = conversations[300:320]
    spec_values["data"].update(validation=[write_dialogs(tmp_path / "v.jsonl", held_out)], max_length=512, sample=30)
    run = finished(new_run(spec_values))
    assert len(set(conversations_in(run, "train"))) == 30
    assert sorted(conversations_in(run, "validation")) == list(range(20))
    store = RowStore(run.data, read_manifest(run.manifest), "validation")
    expected = [row.input_ids for row in rows_of(tiny_model, held_out)]
    assert [row["input_ids"].tolist() for row in store.rows] == expected


@pytest.mark.parametrize(("sample", "expected"), [(None, 120), (25, 25), (1, 1), (1.0, 120), (0.25, 30), (500, 120)])
def test_a_sample_is_as_large_as_asked(spec_values, sample, expected):
    spec_values["data"].update(sample=sample, validation=0)
    spec = parse_spec(spec_values)
    (source,) = find_sources(spec)
    assert source.total == 120
    assert sum(source.split(number) == "train" for number in range(120)) == expected
    assert parse_spec(spec.model_dump(mode="json")).data.sample == spec.data.sample  # 1 and 1.0 stay apart


def test_the_seed_decides_who_is_held_out_and_drawn():
    def split(seed: int, **changes: Any) -> dict[int, str]:
        return split_conversations(**{"total": 200, "sample": 100, "validation": 0.1, "seed": seed, **changes}) or {}

    assert split(1) == split(1)
    others = [split(1), split(2), split(3)]
    for name in ("train", "validation"):
        chosen = [{number for number in other if other[number] == name} for other in others]
        assert len(chosen[0]) == (90 if name == "train" else 10)
        assert chosen[0] != chosen[1] != chosen[2] != chosen[0]
    assert len(split(1, sample=0.5)) == 100 and len(split(1, sample=0.0001)) == 1
    assert split_conversations(200, None, 0.0, 1) is None


@pytest.mark.parametrize("total", [1, 2, 3])
def test_training_always_keeps_a_conversation(total):
    splits = split_conversations(total, None, 0.99, 1) or {}
    assert list(splits.values()).count("train") == 1 and len(splits) == total


BROKEN = ['{"data": ["no answer"]}', '{"data": ["a", "b"', '{"text": "of another kind"}']


def test_a_few_bad_rows_are_counted_and_named(spec_values, tmp_path, small_shards, conversations):
    rows = [*conversations[:40], BROKEN[0], *conversations[40:80], BROKEN[1], *conversations[80:97], BROKEN[2]]
    file = write_dialogs(tmp_path / "a.jsonl", rows)
    spec_values["data"].update(train=[file], validation=0, max_length=512)
    run = finished(new_run(spec_values))
    counts = read_manifest(run.manifest).counts
    assert (counts["conversations_read"], counts["rows_bad"], counts["conversations_kept"]) == (100, 3, 97)
    bad = read_json(run.audit)["bad_rows"]
    assert [(row["file"], row["row"]) for row in bad] == [(file, 41), (file, 82), (file, 100)]
    assert [row["reason"].split(":")[0][:20] for row in bad] == [
        "no pair of question ",
        "not valid JSON",
        "keys text are of no ",
    ]
    assert not set(conversations_in(run, "train")) & {40, 81, 99}


def test_too_many_bad_rows_stop_the_stage(spec_values, tmp_path, small_shards, conversations):
    file = write_dialogs(tmp_path / "a.jsonl", [*conversations[:50], *BROKEN])
    spec_values["data"].update(train=[file], validation=0)
    run = new_run(spec_values)
    with pytest.raises(StageError, match=r"3 of 53 rows are no conversations; the first: .*a\.jsonl, row 51: no pair"):
        finished(run)
    assert not run.manifest.exists()


def test_no_training_row_left_is_an_error(spec_values):
    spec_values["data"].update(max_length=16, overlong="drop")
    run = new_run(spec_values)
    with pytest.raises(StageError, match="no training row is left after preprocessing"):
        finished(run)
    assert not run.manifest.exists()


def test_the_audit_shows_rows_as_the_model_reads_them(spec_values, conversations):
    spec_values["data"].update(validation=0, max_length=512)
    samples = read_json(finished(new_run(spec_values)).audit)["samples"]
    assert len(samples) == 10
    for runs, texts in zip(samples, conversations, strict=False):
        turns = turns_of(texts)
        assert [run["learnt"] for run in runs] == [turn.role == "assistant" for turn in turns]
        assert [run["text"] for run in runs][1::2] == [f"{answer}</s>" for answer in texts[1::2]]
        assert runs[0]["text"] == f"<s>User: {texts[0]}</s>\nAssistant: "


def test_the_fingerprint_tells_what_decides_the_rows(spec_values):
    def fingerprint(**data: Any) -> str:
        return module.fingerprint(parse_spec({**spec_values, "data": {**spec_values["data"], **data}}))

    assert fingerprint() == fingerprint()
    assert len({fingerprint(), fingerprint(mask="last_turn"), fingerprint(max_length=65), fingerprint(sample=9)}) == 4
    other = {**spec_values, "train": {"epochs": 9}}
    assert module.fingerprint(parse_spec(other)) == fingerprint()


def test_a_repaired_file_is_read_again(spec_values, tmp_path, small_shards, conversations):
    """What `too many bad rows` asks the user to do, and then to run the stage again."""
    file = write_dialogs(tmp_path / "a.jsonl", [*conversations[:30], *BROKEN])
    spec_values["data"].update(train=[file], validation=0)
    run = new_run(spec_values)
    with pytest.raises(StageError, match="3 of 33 rows"):
        finished(run)
    write_dialogs(tmp_path / "a.jsonl", conversations[:33])
    assert Manifest.model_validate(read_json(finished(run).manifest)).counts["rows_bad"] == 0


def test_a_changed_file_replaces_what_was_made(spec_values, tmp_path, small_shards, conversations):
    """Also after the manifest was written: rows and manifest are those of a run that never saw the old file."""
    spec_values["data"].update(train=[write_dialogs(tmp_path / "a.jsonl", conversations[:40])])
    run = finished(new_run(spec_values))
    before = made(run)
    write_dialogs(tmp_path / "a.jsonl", conversations[40:80])
    fresh = finished(new_run({**spec_values, "runs_dir": str(tmp_path / "fresh")}))
    assert made(finished(run)) == made(fresh) != before
    assert read_manifest(run.manifest).counts["conversations_read"] == 40


def test_half_a_surrogate_pair_is_a_bad_row(spec_values, tmp_path, conversations):
    file = write_dialogs(tmp_path / "a.jsonl", [*conversations[:50], '{"data": ["cut: \\ud83d", "b"]}'])
    assert len(list(read_rows([file]))) == 51
    spec_values["data"].update(train=[file])
    assert read_manifest(finished(new_run(spec_values)).manifest).counts["rows_bad"] == 1
