"""Guards that a rank that has fallen silent is called by name, and that one at work is not."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from hpcsft.monitor.state.ranks import rank_troubles

NOW = 1_800_000_000.0
BEGAN = NOW - 3600


def beat(rank: int, ago_s: float, phase: str = "step", step: int = 118) -> dict[str, Any]:
    updated = datetime.fromtimestamp(NOW - ago_s, timezone.utc).isoformat()
    return {"rank": rank, "host": f"n{rank + 1}", "phase": phase, "step": step, "updated": updated}


def told(*beats: dict[str, Any], **train: Any) -> list[tuple[int | None, str, str]]:
    return [(t.rank, t.host, t.text) for t in rank_troubles(beats, train, BEGAN, NOW)]


def test_ranks_at_work_are_not_named():
    assert told(*(beat(rank, 5 + 25 * (rank % 2)) for rank in range(8))) == []
    assert told() == []


def test_a_silent_rank_is_named_with_its_host_and_where_it_is():
    beats = [*(beat(rank, 10) for rank in range(3)), beat(3, 200, step=117)]
    assert told(*beats) == [(3, "n4", "silent for 200 s, in step 117")]


def test_another_clock_is_no_silence():
    """The whole cluster's clocks may differ from the login node's."""
    assert told(*(beat(rank, 150) for rank in range(4))) == []


def test_all_silent_together():
    assert told(*(beat(rank, 400) for rank in range(4))) == [(None, "", "no rank has given a sign for 400 s")]


def test_loading_and_saving_give_no_signs_and_are_no_silence():
    assert told(*(beat(rank, 900, "start") for rank in range(4))) == []
    assert told(beat(0, 10), beat(1, 10), beat(2, 300, "save")) == []


def test_records_of_an_earlier_attempt_do_not_count():
    assert told(beat(0, 10), beat(1, 10), beat(7, 7200)) == []


def test_the_rank_whose_data_all_wait_for_is_named():
    figures = {"tokens": 1000, "tokens_per_s": 100.0, "data_rank": 1}
    slow = told(beat(0, 5), beat(1, 5), data_s=2.0, **figures)
    assert slow == [(1, "n2", "slow: waits 2.0 s of a step of 10.0 s for its data")]
    assert told(beat(0, 5), beat(1, 5), data_s=0.5, **figures) == []
    assert told(data_s=2.0, tokens=1000, tokens_per_s=100.0) == [], "metrics of an older version name no rank"
