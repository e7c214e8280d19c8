"""What attempts leave for the account: the memory of their process, and when the one before was last seen."""

from __future__ import annotations

from typing import Any

import pytest

from hpcsft.errors import InputError
from hpcsft.records import read_jsonl
from hpcsft.rundir import RunDir
from hpcsft.stage import StageContext, run_stage
from tests.attempt.made import empty_run


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDir:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SUBMITIT_EXECUTOR"):
        monkeypatch.delenv(name, raising=False)
    return empty_run(tmp_path)


def rows(run: RunDir, event: str) -> list[dict[str, Any]]:
    return [row for row in read_jsonl(run.journal_file("judge", 0, 1)) if row["event"] == event]


def fail(context: StageContext) -> None:
    raise InputError("no", "hint")


def stop(context: StageContext) -> None:
    context.notice.request("SIGTERM")
    context.stop_if_asked()


@pytest.mark.parametrize(("event", "body"), [("done", lambda context: None), ("failed", fail), ("stopped", stop)])
def test_the_last_row_of_every_attempt_has_the_memory_of_its_process(run, event, body):
    try:
        run_stage("judge", body, [str(run.path)])
    except SystemExit:
        assert event != "done"
    (row,) = rows(run, event)
    assert 0.01 < row["memory_gb"] < 20


def test_the_next_start_tells_when_the_attempt_before_was_last_seen(run):
    run_stage("judge", lambda context: None, [str(run.path)])
    seen = run.read_status("judge", 0, 1).updated
    run_stage("judge", lambda context: None, [str(run.path)])
    first, second = rows(run, "start")
    assert "last_seen" not in first and second["last_seen"] == seen
