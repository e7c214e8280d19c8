"""Guards the story of a task: each attempt once, with the cause that was settled, not the first guess."""

from __future__ import annotations

from typing import Any

from hpcsft.monitor.state.history import attempts, restarts_text


def row(event: str, restart: int = 0, job_id: str = "7", **facts: Any) -> dict[str, Any]:
    where = {
        "index": 0,
        "job_id": job_id,
        "restart": restart,
        "host": "n1",
        "time": f"2026-11-30T10:0{restart}:00+00:00",
    }
    return {**where, "event": event, **facts}


STORY = [
    row("start"),
    row("resumed", step=0, lost_steps=0),
    row("saved", step=100),
    row("failed", cause="rank_failure"),
    row("end", cause="node_failure"),
    row("start", 1),
    row("resumed", 1, step=100, lost_steps=12),
    row("stopped", 1, cause="preemption", step=140),
    row("end", 1, cause="preemption"),
    row("start", 2),
    row("done", 2),
]


def test_the_attempts_of_a_task():
    found = attempts(STORY)
    assert [(a.restart, a.cause, a.step, a.lost_steps) for a in found] == [
        (0, "node_failure", 100, 0),
        (1, "preemption", 140, 12),
        (2, "done", None, None),
    ]
    assert found[0].host == "n1" and found[0].started == "2026-11-30T10:00:00+00:00"


def test_an_attempt_that_runs_has_no_cause():
    assert attempts(STORY[:3])[0].cause is None
    assert attempts([]) == []


def test_a_job_that_ended_before_it_started_is_no_attempt():
    assert attempts([row("end", cause="node_failure")]) == []


def test_an_attempt_on_a_bad_node_names_it_and_whether_the_next_does_without():
    story = [row("start"), row("end", cause="bad_node", unfit=["n7", "n9"])]
    assert attempts(story)[0].end_text == "a node is not fit for use: n7, n9"
    story.append(row("excluded", nodes=["n4", "n7", "n9"]))
    assert attempts(story)[0].end_text == "a node is not fit for use: n7, n9 (excluded from the next)"
    story[-1]["refused"] = "Access denied"
    assert attempts(story)[0].end_text == "a node is not fit for use: n7, n9"
    assert [attempt.end_text for attempt in attempts(STORY)] == ["lost without notice", "preempted", "done"]


def test_restarts_in_words():
    assert restarts_text(attempts(STORY[:3])) is None
    assert restarts_text(attempts(STORY)) == "began again twice (lost without notice, preempted)"
    many = [r for n in range(4) for r in (row("start", n), row("end", n, cause="preemption"))]
    assert restarts_text(attempts(many)) == "began again 3 times (3 x preempted)"
    assert restarts_text(attempts([row("start"), row("start", job_id="8")])) == "began again once"
