"""Nothing that a run has written is ever half there: not after a failed write, a full disk or SIGKILL.

Readers (the monitor, a requeued job, the report) look at these files at any moment, also while they are written.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from hpcsft.records import (
    Progress,
    StageStatus,
    Submission,
    SubmittedStage,
    append_jsonl,
    fsync_folder,
    now,
    read_json,
    read_jsonl,
    write_json,
    write_text,
)
from tests.launch.command import ROOT, TIMEOUT_S, environment


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run_code(code: str, folder: Path) -> str:
    """What `code` prints, run in a process of its own with `folder` as its only argument."""
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=TIMEOUT_S, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_json_is_written_whole_and_private(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"text": "第一", "list": [1, 2.5, None]})
    assert read_json(path) == {"text": "第一", "list": [1, 2.5, None]}
    assert "第一" in path.read_text(encoding="utf-8"), "readable by people too"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(tmp_path) == ["a.json"]


def test_a_record_is_written_as_its_fields(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, Progress(done=1, total=2, unit="rows"))
    assert read_json(path) == {"done": 1, "total": 2, "unit": "rows"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused(value, tmp_path):
    """They are no JSON: another reader of the run directory would choke on them."""
    path = tmp_path / "a.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": value})
    assert read_json(path) == {"loss": 1.0}
    lines = tmp_path / "a.jsonl"
    append_jsonl(lines, {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_jsonl(lines, {"loss": 2.0}, {"loss": value})
    assert list(read_jsonl(lines)) == [{"loss": 1.0}]


def test_a_write_that_fails_in_the_middle_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "x" * 100_000 + "\ud800")  # a lone surrogate has no UTF-8
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_rename_that_fails_leaves_no_temporary(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "a.json", "text")
    assert names(tmp_path) == ["a.json"]


LIMITED = """
import resource, sys
from pathlib import Path
from hpcsft.records import append_jsonl, write_json
folder = Path(sys.argv[1])
write_json(folder / "a.json", {"n": 1})
append_jsonl(folder / "a.jsonl", {"n": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write, name in ((write_json, "a.json"), (append_jsonl, "a.jsonl")):
    try:
        write(folder / name, {"n": 2, "text": "x" * 2000})
    except OSError:
        print(name, "refused")
"""


def test_a_full_disk_is_told_and_takes_nothing_that_was_there(tmp_path):
    """A limit on the size of files stands for the full disk: both first take a part of the write, then refuse."""
    assert run_code(LIMITED, tmp_path).splitlines() == ["a.json refused", "a.jsonl refused"]
    assert read_json(tmp_path / "a.json") == {"n": 1}
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [{"n": 1}]
    assert names(tmp_path) == ["a.json", "a.jsonl"]
    append_jsonl(tmp_path / "a.jsonl", {"n": 3})
    assert list(read_jsonl(tmp_path / "a.jsonl")) == [{"n": 1}, {"n": 3}]


TORN = [
    b'{"n": 3, "te',
    '{"n": 3, "text": "第'.encode()[:-1],  # in the middle of a character
    b"\0" * 64,  # what a file system may leave after a power cut
    b'{"n": 3, "text": "x"',
]


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_last_line_is_skipped_and_the_next_append_heals(torn, tmp_path):
    path = tmp_path / "a.jsonl"
    append_jsonl(path, {"n": 1}, {"n": 2})
    with open(path, "ab") as file:
        file.write(torn)
    assert list(read_jsonl(path)) == [{"n": 1}, {"n": 2}]
    append_jsonl(path, {"n": 4})
    append_jsonl(path, {"n": 5})
    assert [row["n"] for row in read_jsonl(path)] == [1, 2, 4, 5]


def test_a_last_line_that_lacks_only_its_end_is_whole(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\n{"n": 2}')
    append_jsonl(path, {"n": 3})
    assert [row["n"] for row in read_jsonl(path)] == [1, 2, 3]


def test_jsonl_is_one_line_per_row_whatever_is_in_it(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"text": 'two\nlines, "quotes" and \u2028'}, {"text": "第二"}, {"text": ""}]
    append_jsonl(path, *rows)
    assert path.read_bytes().count(b"\n") == 3
    assert list(read_jsonl(path)) == rows
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_missing_file_has_no_rows_and_is_not_made(tmp_path):
    assert list(read_jsonl(tmp_path / "none.jsonl")) == []
    assert names(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


APPENDERS = 4
ROWS = 200


def test_rows_of_several_writers_do_not_mix(tmp_path):
    """The ranks of a task write to one journal at the same time."""
    code = f"""
import sys
from pathlib import Path
from hpcsft.records import append_jsonl
for number in range({ROWS}):
    append_jsonl(Path(sys.argv[1]) / "a.jsonl", {{"writer": int(sys.argv[2]), "number": number, "pad": "x" * 300}})
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)], cwd=ROOT, env=environment())
        for number in range(APPENDERS)
    ]
    assert [writer.wait(TIMEOUT_S) for writer in writers] == [0] * APPENDERS
    rows = [(row["writer"], row["number"]) for row in read_jsonl(tmp_path / "a.jsonl")]
    assert sorted(rows) == [(writer, number) for writer in range(APPENDERS) for number in range(ROWS)]


KILLED = """
import json, os, random, signal, sys, time
from pathlib import Path
from hpcsft.records import append_jsonl, read_json, read_jsonl, write_json

folder = Path(sys.argv[1])
state, journal = folder / "state.json", folder / "journal.jsonl"
PAD = "x" * 200_000  # several pages, so that a write in place would be seen half done
KILLS = 30


def write_for_ever(number):
    while True:
        number += 1
        write_json(state, {"number": number, "pad": PAD, "again": number})
        append_jsonl(journal, {"number": number, "pad": PAD[:20_000], "again": number})


def look():
    value = read_json(state)  # raises if it is no whole document
    assert value["number"] == value["again"] and value["pad"] == PAD
    return value["number"]


random.seed(0)
write_json(state, {"number": 0, "pad": PAD, "again": 0})
last, kills = 0, {0}
for kill in range(KILLS):
    child = os.fork()
    if child == 0:
        write_for_ever(last)
    seen, end = last, float("inf")
    try:
        while time.monotonic() < end:
            number = look()
            assert number >= seen, f"went back from {seen} to {number}"
            if number > last and end == float("inf"):  # it writes: from now on it may be killed at any moment
                end = time.monotonic() + random.uniform(0, 0.02)
            seen = number
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    number = look()
    assert number >= seen
    last = number
    kills.add(last)  # the journal's row of this number may be what the kill prevented

numbers = [row["number"] for row in read_jsonl(journal)]
assert all(row["again"] == row["number"] and len(row["pad"]) == 20_000 for row in read_jsonl(journal))
assert set(range(last + 1)) - set(numbers) <= kills, "a row that had been written is gone"
append_jsonl(journal, {"number": -1})
assert [row["number"] for row in read_jsonl(journal)] == [*numbers, -1]
print(len(kills) - 1)
"""


def test_a_reader_sees_the_old_file_or_the_new_one_whenever_the_writer_is_killed(tmp_path):
    """Thirty writers, killed at random moments, with a reader that looks all the time."""
    assert run_code(KILLED, tmp_path) == "30\n"


def test_now_is_utc_and_sorts():
    moment = datetime.fromisoformat(now())
    assert moment.utcoffset() == timedelta(0)
    assert len(now()) == len("2026-01-01T00:00:00.000+00:00"), "always to the millisecond, so that texts sort"


def test_fsync_folder_closes_what_it_opens(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        fsync_folder(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_records_are_frozen_and_read_what_a_newer_version_wrote():
    progress = Progress.model_validate({"done": 1, "total": 2, "unit": "rows", "new": True})
    with pytest.raises(ValidationError, match="frozen"):
        progress.done = 2


def test_a_status_has_one_of_three_states():
    with pytest.raises(ValidationError, match="state"):
        StageStatus(stage="train", index=0, state="finished", attempt=1, job_id="1")


def test_the_latest_submission_of_a_stage_counts():
    def job(stage: str, job_id: str) -> SubmittedStage:
        return SubmittedStage(stage=stage, job_id=job_id, depends_on=[], tasks=1, submitted=now())

    jobs = [job("train", "1"), job("judge", "2"), job("train", "3")]
    submission = Submission(cluster="slurm", host="login", jobs=jobs)
    latest = submission.latest()
    assert {stage: submitted.job_id for stage, submitted in latest.items()} == {"train": "3", "judge": "2"}
    assert list(latest) == ["train", "judge"], "in the order of the plan"
    assert Submission.model_validate(json.loads(submission.model_dump_json())) == submission


@pytest.mark.parametrize(
    ("job_id", "started", "expected"),
    [
        ("7", "", True),
        ("7_3", "", True),
        ("70", "", False),
        ("hand-123", "2026-11-30T10:00:01.000+00:00", True),
        ("hand-123", "2026-11-30T09:59:59.000+00:00", False),
    ],
)
def test_a_status_is_of_its_own_submission(job_id, started, expected):
    job = SubmittedStage(stage="train", job_id="7", depends_on=[], tasks=4, submitted="2026-11-30T10:00:00.000+00:00")
    status = StageStatus(stage="train", index=0, state="running", attempt=1, job_id=job_id, started=started)
    assert status.is_of(job) is expected


@pytest.mark.parametrize("started", ["2026-11-30T09:00:00.000+00:00", "2026-11-30T11:00:00.000+00:00"])
def test_what_was_started_by_hand_is_of_the_job_that_it_came_after_whatever_the_clocks_say(started):
    job = SubmittedStage(stage="train", job_id="7", depends_on=[], tasks=1, submitted="2026-11-30T10:00:00.000+00:00")
    status = StageStatus(stage="train", index=0, state="running", attempt=1, job_id="hand-1", started=started)
    assert status.model_copy(update={"after_job": "7"}).is_of(job)
    assert not status.model_copy(update={"after_job": "5"}).is_of(job)


def test_what_is_no_file_keeps_nobody_waiting(tmp_path):
    """Another user's run may hold a pipe that nobody writes into, or a link to a device that never ends."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "zero"):
        with pytest.raises(ValueError, match="is no file"):
            read_json(path)
        assert list(read_jsonl(path)) == []
    (tmp_path / "deep").write_text("[" * 200_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / "deep")


@pytest.mark.parametrize("job_id", ["--user=me", "1 2", "1;x", "1\x1b[2J", "../1", "7\n"])
def test_no_id_of_a_job_is_an_option_or_moves_a_terminal(job_id):
    """A run directory may be anybody's, and its ids are given to scancel."""
    with pytest.raises(ValidationError, match="should match pattern"):
        SubmittedStage(stage="train", job_id=job_id, depends_on=[], tasks=1, submitted="")
    with pytest.raises(ValidationError, match="should match pattern"):
        StageStatus(stage="train", index=0, state="done", attempt=1, job_id=job_id)


@pytest.mark.parametrize("job_id", ["", "17", "17_3", "17+1", "local-4711_0", "hand-12"])
def test_ids_of_jobs(job_id):
    assert StageStatus(stage="train", index=0, state="done", attempt=1, job_id=job_id).job_id == job_id


def test_a_time_that_is_none_is_not_understood():
    """One status of this kind kept `hpcsft runs` from listing all the others."""
    with pytest.raises(ValidationError, match="isoformat"):
        StageStatus(stage="train", index=0, state="done", attempt=1, job_id="1", started="yesterday")
