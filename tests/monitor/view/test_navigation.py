"""Guards the keys: each does what the help says, wherever one is, and nothing leads out of bounds."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from hpcsft.monitor.view.navigation import Place, chosen_rank, chosen_stage, chosen_stream, chosen_task, press
from tests.monitor.screens import FAILED, PENDING, REQUEUED, RUNNING, SITUATIONS, WAITS, many
from tests.monitor.situations import queued, said, stage_of, state_of

STATES = many(20)
RANKS = [0, 1, 2, 5]


def after(place: Place, *keys: str) -> Place:
    for key in keys:
        place, _ = press(place, key, STATES, RANKS)
    return place


def action(place: Place, key: str) -> str | None:
    return press(place, key, STATES, RANKS)[1]


def test_what_matters_most_is_chosen_by_itself():
    chosen = {name: state.stages[chosen_stage(state, Place("run"))].name for name, (state, _) in SITUATIONS.items()}
    assert chosen | {"pending": "preprocess", "running": "train", "failed": "train"} == chosen
    assert chosen | {"requeued": "train", "judging": "judge", "waits": "judge", "finished": "report"} == chosen
    assert chosen_stage(state_of(ids={}), Place("run")) == 0


def test_of_what_failed_the_errors_are_shown():
    assert chosen_stream(FAILED.stages[1], Place("run")) == "err"
    assert chosen_stream(WAITS.stages[3], Place("run")) == "err"
    assert chosen_stream(RUNNING.stages[1], Place("run")) == "out"
    assert chosen_stream(FAILED.stages[1], Place("run", stream="out")) == "out"


def test_through_the_runs_into_one_and_back():
    place = after(Place("runs"), "down", "j", "down", "up")
    assert place.run == 2
    place = after(place, "enter")
    assert (place.page, place.run) == ("run", 2)
    assert after(place, "right").page == "stage"
    assert after(place, "right", "esc", "left") == Place("runs", run=2)
    assert after(Place("runs"), "end").run == 19 and after(Place("runs"), "end", "page up", "home").run == 0


def test_who_has_one_run_cannot_leave_it_backwards():
    place = Place("run", alone=True)
    assert after(place, "esc") == place and after(place, "enter", "esc").page == "run"


def test_another_stage_begins_at_its_first_rank():
    place = after(Place("run", run=1), "r", "e", "page up")
    assert (place.rank, place.stream, place.back) == (1, "err", 10)
    place = after(place, "down")
    assert (place.stage, place.task, place.rank, place.stream, place.back) == (2, None, None, None, 0)


def test_ranks_go_round():
    place = Place("run", run=1)
    assert [after(place, *["r"] * n).rank for n in range(5)] == [None, 1, 2, 5, 0]
    assert after(place, "R").rank == 5
    assert after(replace(place, rank=7), "r").rank == 0, "a rank that is not there"
    assert press(place, "r", STATES, [])[0].rank is None


def test_of_what_failed_the_first_rank_that_failed_is_shown():
    assert chosen_rank(FAILED.stages[1], Place("run")) == 3 and chosen_rank(RUNNING.stages[1], Place("run")) == 0
    assert chosen_rank(FAILED.stages[1], Place("run", rank=0)) == 0
    assert press(Place("run"), "r", [FAILED], [2, 3, 4])[0].rank == 4


def test_of_an_array_the_task_that_failed_is_shown_or_one_that_runs():
    known = [said("generate", "done"), said("generate", "failed", index=2, message="x")]
    stage = stage_of("generate", *known, queued("generate", "RUNNING", index=1), queued("generate", "FAILED", index=2))
    assert chosen_task(stage, Place("run")) == 2 and chosen_task(stage, Place("run", task=0)) == 0
    runs = [said("generate", "done"), said("generate", "running", index=1), queued("generate", "RUNNING", index=1)]
    pending = queued("generate", "PENDING", index=2, reason="Priority")
    assert chosen_task(stage_of("generate", *runs, pending), Place("run")) == 1


def test_a_run_that_cannot_be_read_is_not_opened():
    lost = STATES[0].model_copy(update={"stages": [], "lost": "plan.json is not understood"})
    assert press(Place("runs"), "enter", [lost, STATES[1]], [])[0].page == "runs"
    assert press(Place("runs", run=1), "enter", [lost, STATES[1]], [])[0].page == "run"


def test_cancelling_asks_first():
    place = after(Place("run", run=1), "c")
    assert place.asks and action(place, "y") == "cancel" and action(place, "n") is None and action(place, "q") is None
    assert not after(place, "n").asks
    failed = Place("run", run=STATES.index(next(state for state in STATES if state.state == "failed")))
    assert not after(failed, "c").asks, "there is nothing to cancel"


@pytest.mark.parametrize("page", ["runs", "run", "stage"])
def test_leaving_and_help_work_everywhere(page):
    place = Place(page, run=1)
    assert action(place, "q") == action(place, "ctrl-c") == "quit" and action(place, "u") == "ask"
    assert after(place, "?").help and not after(place, "?", "x").help and action(after(place, "h"), "q") == "quit"
    assert after(place, "\x1b[200~", "é", "F5") == place


def test_no_keys_lead_out_of_bounds():
    """A thousand random keys, with runs that change meanwhile."""
    keys = [
        "up",
        "down",
        "enter",
        "esc",
        "r",
        "R",
        "e",
        "page up",
        "page down",
        "c",
        "n",
        "?",
        "home",
        "end",
        "left",
        "right",
    ]
    dice = random.Random(7)
    for states in (STATES, [PENDING, REQUEUED], [state_of(ids={})] * 2):
        place = Place("runs")
        for key in itertools.islice(iter(lambda: dice.choice(keys), None), 1000):
            place, _ = press(place, key, states, RANKS)
            assert 0 <= place.run < len(states) and place.back >= 0
            stage = states[place.run].stages[chosen_stage(states[place.run], place)]
            assert 0 <= chosen_task(stage, place) < max(1, len(stage.tasks))
