"""The queue as squeue and sacct print it, taken as it was meant."""

from __future__ import annotations

import pytest

from hpcsft.slurm_client import TERMINAL
from hpcsft.slurm_queue import QueueEntry, array_indexes, parse_past, parse_queue

STARTED, ENDS = "2026-11-30T10:00:00", "2026-11-30T11:00:00"


def test_the_queue_is_read_line_by_line():
    output = (
        f"CLUSTER: one\n44|N/A|RUNNING|1:23|1:00:00|{STARTED}|{ENDS}|n[1-2]|None\n"
        "45|2|PENDING|0:00|UNLIMITED|N/A|N/A||Resources, or | so\n"
    )
    assert parse_queue(output) == [
        QueueEntry(
            "44", 0, "RUNNING", "None", "1:23", "1:00:00", "2026-11-30T10:00:00", "n[1-2]", "2026-11-30T11:00:00"
        ),
        QueueEntry("45", 2, "PENDING", "Resources, or | so", "0:00", "UNLIMITED", "N/A", "", "N/A"),
    ]
    assert parse_queue("") == []


def test_the_past_is_that_of_the_last_attempt_of_each_task():
    output = (
        "44|PREEMPTED|00:10:00|01:00:00|2026-11-30T08:00:00|2026-11-30T08:10:00|n1\n"
        "44|CANCELLED by 1000|00:20:00|01:00:00|2026-11-30T09:00:00|2026-11-30T09:20:00|n2\n"
        "45_0|COMPLETED|00:10:00|UNLIMITED|2026-11-30T08:00:00|2026-11-30T08:10:00|n1\n"
        "45_[1-3%2]|CANCELLED by 0|00:00:00|01:00:00|None|2026-11-30T09:20:00|None assigned\n"
    )
    found = parse_past(output)
    assert [(entry.job_id, entry.index, entry.state) for entry in found] == [
        ("44", 0, "CANCELLED"),
        ("45", 0, "COMPLETED"),
        *(("45", index, "CANCELLED") for index in (1, 2, 3)),
    ]
    assert (found[0].elapsed_s, found[0].limit_s, found[0].nodes) == (1200, 3600, "n2") and parse_past("") == []


@pytest.mark.parametrize(
    ("text", "indexes"),
    [
        ("7", [7]),
        ("[0-3]", [0, 1, 2, 3]),
        ("[1,5-6%4]", [1, 5, 6]),
        ("[0-8:4]", [0, 4, 8]),
        ("[0-1,...]", [0, 1]),
        ("[]", []),
    ],
)
def test_tasks_of_an_array(text, indexes):
    assert array_indexes(text) == indexes


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED", "STOPPED"])
def test_what_slurm_still_holds_is_alive(state):
    """PREEMPTED is the end of a job in a partition whose preemptions cancel."""
    assert QueueEntry("44", 0, state, "None", "", "").alive
    assert "PREEMPTED" in TERMINAL and not any(QueueEntry("44", 0, state, "None", "", "").alive for state in TERMINAL)
