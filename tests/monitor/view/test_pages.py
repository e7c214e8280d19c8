"""Guards the screens: each situation at four widths, kept as text in screens/, so that every change is seen.

`HPCSFT_KEEP_SCREENS=1 python -m pytest tests/monitor/view` writes them anew; look at them before you keep them.
"""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from hpcsft.monitor.view.navigation import Place
from hpcsft.monitor.view.pages import LogView, run_page, stage_page, summary
from hpcsft.monitor.view.runs import runs_page
from tests.monitor.screens import ALONE, BACK_AGAIN, FAILED, LOG, NO_LOG, RUNNING, SITUATIONS, WAITS, many
from tests.monitor.situations import queued, said, state_of

SCREENS = Path(__file__).with_name("screens")
WIDTHS = [60, 80, 120, 200]
HEIGHTS = {60: 24, 80: 24, 120: 36, 200: 50}


@pytest.fixture(autouse=True)
def universal_time(monkeypatch: pytest.MonkeyPatch):
    """Screens show local times."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def shown(page: RenderableType, width: int, encoding: str = "utf-8", **more: object) -> str:
    """A screen as text."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    Console(file=out, width=width, **more).print(page)
    return out.buffer.getvalue().decode(encoding)


def compare(name: str, text: str) -> None:
    """With the screen that is kept."""
    text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    path = SCREENS / f"{name}.txt"
    if os.environ.get("HPCSFT_KEEP_SCREENS") == "1":
        SCREENS.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path.name} looks otherwise now"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SITUATIONS)
def test_the_page_of_a_run(name, width):
    state, log = SITUATIONS[name]
    text = shown(run_page(state, ALONE, log, width, HEIGHTS[width]), width)
    compare(f"run-{name}-{width}", text)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_of_many_runs(width):
    compare(f"runs-{width}", shown(runs_page(many(40), Place("runs", run=17), width, HEIGHTS[width]), width))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_of_a_stage(width):
    place = Place("stage", stage=1, alone=True)
    compare(f"stage-{width}", shown(stage_page(BACK_AGAIN, place, LOG, width, HEIGHTS[width]), width))


@pytest.mark.parametrize("width", [80, 120])
def test_the_help_and_the_question(width):
    compare(f"help-{width}", shown(run_page(RUNNING, Place("run", help=True), LOG, width, 24), width))
    compare(f"cancel-{width}", shown(run_page(RUNNING, Place("run", asks=True), LOG, width, 24), width))


def pages(width: int, height: int) -> list[RenderableType]:
    """Every page in every situation."""
    found = [runs_page(many(30), Place("runs", run=5), width, height)]
    for state, log in SITUATIONS.values():
        found += [page(state, ALONE, log, width, height) for page in (run_page, stage_page)]
    return found


@pytest.mark.parametrize("height", [1, 2, 5, 10, 24, 60])
@pytest.mark.parametrize("width", [20, 40, 60, 80, 149, 150, 250])
def test_no_size_is_refused_and_nothing_runs_over_an_edge(width, height):
    for page in pages(width, height):
        lines = shown(page, width).splitlines()
        assert len(lines) <= height and max(map(len, lines)) <= width


def test_what_matters_most_stays_on_a_small_screen():
    """Of ten lines: which run, its stages, what failed and what to do; not the log, not the loss."""
    text = shown(run_page(FAILED, ALONE, SITUATIONS["failed"][1], 80, 12), 80)
    assert "tiny-0123abcd  failed" in text and "train failed: " in text and "q quit" in text
    assert "loss" not in text


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_a_terminal_without_unicode_gets_what_it_knows(encoding):
    for page in pages(120, 40):
        text = shown(page, 120, encoding)
        assert text.isascii() and "?" * 5 not in text
    chinese = LogView("logs/x", ["你好 \U0001f600 [bold]x[/bold]"], [0])
    assert "[bold]x[/bold]" in shown(run_page(RUNNING, ALONE, chinese, 120, 40), 120, encoding)


def test_text_from_outside_is_no_markup():
    """Messages, names and reasons come from files and from Slurm; brackets in them are text."""
    message = "[bold]x[/bold] [/oops] list index [0]"
    status = said("train", "failed", message=message, hint="[red]h", log="[l]")
    text = shown(summary(state_of(status, queued("train", "FAILED"), ids={"train": "102"}), 120), 120)
    assert message in text and "[red]h" in text and "log: [l]" in text
    pending = state_of(queued("preprocess", "PENDING", reason="[/x]"), ids={"preprocess": "101"})
    assert "waiting: [/x]" in shown(summary(pending, 120), 120)
    assert "waiting: [/x]" in shown(runs_page([pending, pending], Place("runs"), 120, 20), 120)
    assert "[b]" in shown(run_page(RUNNING, ALONE, LogView("[b]", ["[/b]"]), 120, 60), 120)


def test_a_failure_is_told_in_full():
    text = " ".join(shown(summary(FAILED, 60), 60).split())
    assert "Tried to allocate 2.00 GiB" in text and "log: logs/train/102_0/3.err:2" in text and "hint: " in text


def test_what_is_waited_for_says_how_to_go_on():
    text = shown(summary(WAITS, 120), 120)
    assert "waiting for a judge" in text and "OPENAI_API_KEY is not set" in text
    assert "python jobs/judge.py /runs/tiny-0123abcd" in text


def test_states_have_their_colours_unless_the_user_wants_none(monkeypatch):
    colours = {"force_terminal": True, "color_system": "truecolor"}
    assert "\x1b[1;31mfailed" in shown(summary(FAILED, 120), 120, **colours)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in shown(summary(FAILED, 120), 120, **colours)


def test_a_stage_without_a_log_says_so():
    assert "no log of train yet" in shown(run_page(RUNNING, ALONE, NO_LOG, 120, 40), 120)
    assert "nothing in out yet" in shown(run_page(RUNNING, ALONE, LogView("logs/x", []), 120, 40), 120)


def test_a_log_is_scrolled_back():
    text = shown(run_page(RUNNING, Place("run", back=5), LOG, 120, 24), 120)
    assert "5 lines back" in text and "step-000700" in text and "step-000800" not in text


def test_a_gradient_norm_that_is_not_known_is_a_question_mark():
    state = RUNNING.model_copy(update={"train": {**RUNNING.train, "grad_norm": None, "loss": None, "mfu": None}})
    text = shown(summary(state, 120), 120)
    assert "gradient norm ?" in text and "not finite" in text and "MFU" not in text


def test_a_lowest_loss_that_is_not_the_last_is_pointed_out():
    losses = [2.5, 2.1, 1.9, 1.8, 1.7, 1.75, 1.9, 2.0]
    validation = [{"checkpoint": f"epoch-{n}" if n else "base", "loss": loss} for n, loss in enumerate(losses)]
    text = shown(summary(RUNNING.model_copy(update={"train": {**RUNNING.train, "validation": validation}}), 160), 160)
    assert "base 2.5000  …  epoch-4 1.7000" in text and "(lowest: epoch-4 1.7000)" in text
    validation = validation[:5]
    text = shown(summary(RUNNING.model_copy(update={"train": {**RUNNING.train, "validation": validation}}), 160), 160)
    assert "lowest" not in text and "…" not in text


def test_some_lines_of_the_log_stay_on_a_default_terminal():
    """Whatever else there is to tell: what it used, or a long failure."""
    finished, _ = SITUATIONS["finished"]
    for state in (finished, FAILED):
        text = shown(run_page(state, ALONE, LOG, 80, 24), 80)
        assert "logs/train/102_0/0.out" in text and "step-001200" in text and "q quit" in text


def test_runs_that_cannot_be_read_are_told_in_the_table():
    lost = RUNNING.model_copy(update={"stages": [], "lost": "plan.json is not understood"})
    gone = RUNNING.model_copy(update={"lost": "no run here any more", "gone": True})
    text = shown(runs_page([lost, gone, RUNNING], Place("runs"), 120, 20), 120)
    assert "1 unreadable" in text and "1 gone" in text and "1 running" in text
    assert "unreadable" in text and "plan.json is not understood" in text
