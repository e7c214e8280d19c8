"""Guards win rates that are shown before the report is there: AlpacaEval's figures of the verdicts so far."""

from __future__ import annotations

import pytest

from hpcsft.monitor.state.facts import Judged
from hpcsft.monitor.state.standing import standing


def judged(*verdicts: tuple[int, float], **more: object) -> Judged:
    return Judged(name="epoch-1", answers=10, verdicts=list(verdicts), **more)


def test_both_orders_of_a_pair_are_one_row():
    known = standing(judged((0, 1.0), (0, 0.0), (1, 1.0), (1, 1.0), (2, 0.0)))
    assert (known.win_rate, known.verdicts, known.answers, known.final) == (50.0, 5, 10, False)


def test_the_interval_is_that_of_the_mean():
    known = standing(judged(*((row, float(row % 2)) for row in range(100))))
    assert known.interval and known.interval == pytest.approx((40.15, 59.85), abs=0.01)


def test_an_interval_does_not_leave_0_to_100():
    low = standing(judged((0, 0.0), (1, 0.0), (2, 0.1))).interval
    assert low and low[0] == 0.0
    high = standing(judged((0, 1.0), (1, 1.0), (2, 0.9))).interval
    assert high and high[1] == 100.0


def test_few_verdicts_have_no_interval():
    assert standing(judged()).win_rate is None
    assert standing(judged((0, 1.0))).interval is None


def test_the_reports_figures_replace_them():
    final = {"win_rate": 21.45, "interval": [18.0, 25.0], "n_total": 805}
    known = standing(judged((0, 1.0), final=final))
    assert (known.win_rate, known.interval, known.final) == (21.45, (18.0, 25.0), True) and known.verdicts is None
    assert standing(judged(final={**final, "interval": None})).interval is None
