"""The journal: every attempt told apart, nothing lost to a writer that was killed."""

from __future__ import annotations

import pytest

from hpcsft.attempt.journal import last
from hpcsft.rundir import RunDir
from tests.attempt.made import empty_run, journal, token


@pytest.fixture
def run(tmp_path) -> RunDir:
    return empty_run(tmp_path)


def test_rows_are_told_apart_by_attempt_and_by_submission(run):
    for job_id, restart in (("44", 0), ("44", 1), ("50", 0)):
        journal(run, job_id, restart).write("start", attempt=1)
    journal(run, "44", 1).write("saved", step=3)
    own = journal(run, "44", 1)
    assert [row["event"] for row in own.of_attempt()] == ["start", "saved"]
    assert [row["restart"] for row in own.of_submission()] == [0, 1, 1]
    assert [row["job_id"] for row in journal(run, "50", 0).of_attempt()] == ["50"]
    assert len(own.rows()) == 4


def test_a_row_is_about_another_attempt_when_asked_and_leaves_out_what_is_not_known(run):
    journal(run, "44", 1).write("end", token("44", 0), cause="preemption", status=None)
    (row,) = journal(run).rows()
    assert (row["restart"], row["cause"], "status" in row) == (0, "preemption", False)
    assert row.keys() >= {"time", "event", "stage", "index", "job_id", "restart", "host"}


def test_a_row_can_be_judged_before_it_is_written(run):
    """On a full disk it never is."""
    own = journal(run)
    row = own.row("end", cause="disk_full", progressed=False)
    assert own.rows() == []
    own.append(row)
    assert own.rows() == [row]


def test_a_torn_line_hides_neither_its_neighbours_nor_the_journal(run):
    own = journal(run)
    own.write("start")
    with open(own.file, "a") as file:
        file.write('{"event": "sav')
    own.write("end", cause="code", progressed=False)
    assert [row["event"] for row in own.rows()] == ["start", "end"]


def test_the_last_row_of_a_kind(run):
    own = journal(run)
    for step in (1, 2):
        own.write("saved", step=step)
    own.write("done")
    assert last(own.rows(), "saved")["step"] == 2
    assert last(own.rows(), "failed") is None
