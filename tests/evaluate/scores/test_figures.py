"""Guards the numbers in the table: every formula against an independent computation to 1e-9, for every format."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest

from hpcsft.evaluate.scores.annotations import Annotations, Place, Row, by_model
from hpcsft.evaluate.scores.position import position_bias
from hpcsft.evaluate.scores.summary import score
from hpcsft.evaluate.scores.win_rate import win_rate
from tests.evaluate.scores.made import ALL_SORTS, HARD, WITH_DRAWS, alpaca_rows, drawn, kept, model, old


@pytest.mark.parametrize("kinds", [HARD, WITH_DRAWS, ["weighted"], ["weighted", 1.5, None], ALL_SORTS])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("style", ["new", "old"])
def test_every_figure_is_alpaca_evals(kinds, seed, style):
    rows = alpaca_rows(seed, 211, kinds)
    scores = win_rate(by_model(old(rows, "model") if style == "old" else rows, "file")[0].rows)
    u = np.array(kept(rows))
    assert len(u) > 0
    assert scores.win_rate == pytest.approx(100 * u.mean(), abs=1e-9)
    assert scores.standard_error == pytest.approx(100 * u.std(ddof=1) / math.sqrt(len(u)), abs=1e-9)
    wins, draws = int((u > 0.5).sum()), int((u == 0.5).sum())
    assert (scores.n_wins, scores.n_draws, scores.n_wins_base) == (wins, draws, len(u) - wins - draws)
    assert scores.n_total == len(u)
    assert scores.discrete_win_rate == pytest.approx(float(Fraction(100 * (2 * wins + draws), 2 * len(u))), abs=1e-9)
    assert scores.avg_length == sum(len(row["output_2"]) for row in rows) // len(rows)  # judged or not


def test_a_published_row_comes_out_to_the_last_digit():
    """Counts and figures of a leaderboard that alpaca_eval wrote: 172 wins, 630 losses."""
    found = score(model("llama", [1.0] * 172 + [0.0] * 630))
    assert (found.win_rate, found.standard_error) == (21.44638403990025, 1.4502533316963284)
    assert (found.n_total, found.n_draws, found.discrete_win_rate) == (802, 0, 21.44638403990025)


@pytest.mark.parametrize("kinds", [HARD, WITH_DRAWS, ["weighted"], ALL_SORTS])
def test_position_comes_from_the_draw(kinds):
    rows = alpaca_rows(4, 300, kinds)
    bias = position_bias(by_model(rows, "file")[0].rows)
    shown = [(drawn(row["instruction"]), kept([row])[0]) for row in rows if kept([row])]
    first, second = [u for place, u in shown if place], [u for place, u in shown if not place]
    assert bias.first == pytest.approx(100 * np.mean(first), abs=1e-9)
    assert bias.second == pytest.approx(100 * np.mean(second), abs=1e-9)
    assert bias.chosen_first == pytest.approx(100 * np.mean(first + [1 - u for u in second]), abs=1e-9)
    assert (bias.n_first, bias.n_second) == (len(first), len(second))
    assert (bias.consistency, bias.n_both_orders, bias.n_replies_disagree) == (None, 0, 0)
    assert bias.order_source == "drawn"


def test_orders_that_the_file_records_are_told_from_the_draw():
    rows = alpaca_rows(4, 6, HARD)
    recorded = [{**row, "orders": [{"model_first": True, "preference": row["preference"]}]} for row in rows]
    sources = [position_bias(by_model(r, "file")[0].rows).order_source for r in (recorded, recorded[:5] + rows[5:])]
    assert sources == ["recorded", "drawn"]
    assert position_bias([]).order_source is None


def shown(*utilities: tuple[bool, float]) -> Row:
    return Row("q", "", None, 1, 1, tuple(Place(*place) for place in utilities))


def test_a_judge_that_always_takes_the_first_is_seen():
    bias = position_bias([shown((True, 1.0), (False, 0.0))] * 4)
    assert (bias.first, bias.second, bias.chosen_first, bias.consistency) == (100, 0, 100, 0)
    fair = position_bias([shown((True, 1.0), (False, 1.0)), shown((True, 0.0), (False, 0.0))])
    assert (fair.first, fair.second, fair.chosen_first, fair.consistency) == (50, 50, 50, 100)
    nothing = position_bias([])
    assert (nothing.first, nothing.second, nothing.chosen_first, nothing.consistency) == (None,) * 4


def test_consistency_is_about_winners_in_both_orders():
    rows = [
        shown((True, 0.9), (False, 0.6)),  # the same winner, less sure
        shown((True, 0.6), (False, 0.4)),  # another
        shown((True, 0.5), (False, 0.5)),  # a draw twice
        shown((True, 0.5), (False, 1.0)),  # a draw once
        shown((True, 1.0)),  # seen in one order
        shown(),
    ]
    bias = position_bias(rows)
    assert (bias.consistency, bias.n_both_orders) == (50, 4)


@pytest.mark.parametrize(("utilities", "rate"), [([], None), ([None], None), ([0.25], 25.0)])
def test_too_few_verdicts_give_no_number_instead_of_nan(utilities, rate):
    found = score(model("m", utilities))
    assert (found.win_rate, found.standard_error, found.interval) == (rate, None, None)
    assert found.avg_length == (7 if utilities else None)
    assert found.n_unparsed == utilities.count(None)
    json.dumps(found.model_dump(), allow_nan=False)


def test_data_sets_are_scored_apart():
    rows = alpaca_rows(6, 120, ALL_SORTS)
    found = score(by_model(rows, "file")[0])
    assert list(found.datasets) == ["koala", "vicuna"]
    for name, part in found.datasets.items():
        u = np.array(kept([row for row in rows if row["dataset"] == name]))
        assert part.win_rate == pytest.approx(100 * u.mean(), abs=1e-9)
        assert part.standard_error == pytest.approx(100 * u.std(ddof=1) / math.sqrt(len(u)), abs=1e-9)
        assert part.n_total == len(u) and part.interval[0] < part.win_rate < part.interval[1]
    assert score(model("m", [1.0, 0.0])).datasets == {}


def test_scores_do_not_depend_on_the_order_of_the_rows():
    forth = by_model(alpaca_rows(2, 90, ALL_SORTS), "file")[0]
    back = Annotations(*forth[:3], forth.rows[::-1])
    one, other = score(forth).model_dump(), score(back).model_dump()
    for figure in ("length_only_win_rate", "length_only_standard_error"):
        assert one.pop(figure) == pytest.approx(other.pop(figure), abs=1e-9)
    assert one == other
