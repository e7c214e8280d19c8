"""Guards what is shown: nothing runs over the edge of a narrow terminal, what failed says why and where to look, and a
pipe gets a line only when something changed.
"""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from hpcsft.monitor.state import RunState
from hpcsft.monitor.view import SPARKS, changed_lines, plain_line, render, sparkline
from tests.monitor.situations import PLAN, progress, queued, said, stage_of, state_of

WIDTHS = [40, 60, 80, 120, 200]
TRAIN: dict[str, Any] = {
    "step": 1234,
    "epoch": 2.345,
    "loss": 1.23456,
    "lr": 1.8e-5,
    "grad_norm": 0.98765,
    "tokens_per_s": 123456.7,
    "losses": [3.0 - 0.02 * n for n in range(60)],
    "validation": [{"checkpoint": name, "loss": 2.5} for name in ("base", "epoch-1", "epoch-2", "epoch-3")],
    "checkpoint": "step-001200",
}
FAILURE = "CUDA out of memory: tried to allocate 2.00 GiB; " * 3


def done(*stages: str) -> list:
    return [said(stage, "done", index=index) for stage in stages for index in range(PLAN.stage(stage).tasks)]


def waiting(*stages: str) -> list:
    return [queued(stage, "PENDING", index=i, reason="Dependency") for stage in stages for i in range(3)]


SITUATIONS: dict[str, RunState] = {
    "waiting": state_of(*waiting(*PLAN.stage_names)),
    "training": state_of(
        *done("preprocess"),
        said("train", "running", restart=12, progress=progress(1234, 98765)),
        queued("train", "RUNNING"),
        *waiting("generate", "judge", "report"),
        train=TRAIN,
    ),
    "failed": state_of(
        *done("preprocess"),
        said("train", "failed", message=FAILURE, hint="lower train.micro_batch_size", log="logs/train/102_0/0.err"),
        train=TRAIN,
    ),
    "waits": state_of(
        *done("preprocess", "train", "generate"),
        said("judge", "waiting", message=FAILURE, hint="python jobs/judge.py RUN_DIR", log="logs/judge/104_0/0.err"),
        train=TRAIN,
    ),
    "done": state_of(*done(*PLAN.stage_names), train=TRAIN),
    "before training": state_of(ids={}),
    "only validated": state_of(*done("preprocess"), train={"losses": [], "validation": TRAIN["validation"]}),
    "no answer": state_of(queue=None, problem="squeue does not answer: timed out after 30 seconds"),
}


def shown(state: RunState, width: int, color: bool = False) -> str:
    text = io.StringIO()
    Console(file=text, width=width, force_terminal=color, color_system="truecolor" if color else None).print(
        render(state, width)
    )
    return text.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SITUATIONS)
def test_no_line_is_wider_than_the_terminal(name, width):
    lines = shown(SITUATIONS[name], width).splitlines()
    assert lines and max(map(len, lines)) <= width
    assert "tiny-0123abcd" in lines[0] and SITUATIONS[name].state in lines[0]


def test_names_states_and_jobs_are_whole():
    for width in WIDTHS:
        for state in SITUATIONS.values():
            lines = shown(state, width).splitlines()
            for stage in state.stages:
                words = [stage.name, stage.state, *(stage.job_ids if width >= 80 else [])]
                assert any(line.split()[: len(words)] == words for line in lines), (width, words)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_failure_is_told_in_full(width):
    text = shown(SITUATIONS["failed"], width)
    flat = " ".join(text.split())
    assert " ".join(FAILURE.split()) in flat
    assert "hint: lower train.micro_batch_size" in flat
    assert "log: logs/train/102_0/0.err" in flat


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_run_in_training_shows_how_it_does(width):
    text = shown(SITUATIONS["training"], width)
    for word in ("1.2346", "2.35", "123,457 tokens/s", "lr 1.80e-05", "0.988", "epoch-3 2.5000", "step-001200"):
        assert word in text
    assert "1234/98765 steps" in text and ("12 restarts" in text or width < 120)
    assert "1:23 of 12:00:00" in text or width < 120
    assert "102" in text or width < 120


def test_a_gradient_norm_that_is_not_known_is_a_question_mark():
    for norm in ({}, {"grad_norm": None}):
        train = {**{key: value for key, value in TRAIN.items() if key != "grad_norm"}, **norm}
        assert "gradient norm ?" in shown(state_of(train=train), 120)


def test_memory_and_utilisation_are_shown_where_they_are_known():
    assert "at most 38.4 GB on a rank" in shown(state_of(train={**TRAIN, "memory_gb": 38.41, "mfu": None}), 120)
    assert "MFU 41% · at most 38.4 GB" in shown(state_of(train={**TRAIN, "memory_gb": 38.41, "mfu": 0.412}), 120)


def test_a_loss_that_is_not_finite_is_told_in_words():
    assert "not finite" in shown(state_of(train={**TRAIN, "loss": None}), 120)


def test_text_from_outside_is_no_markup():
    """Messages, names and reasons come from files and from Slurm; brackets in them are text."""
    message = "[bold]x[/bold] [/oops] list index [0]"
    state = state_of(*done("preprocess"), said("train", "failed", message=message, hint="[red]h", log="[l]"))
    text = shown(state, 120)
    assert message in text and "hint: [red]h" in text and "log: [l]" in text
    assert "waiting: [/x]" in shown(state_of(queued("preprocess", "PENDING", reason="[/x]")), 120)


def test_states_have_their_colours():
    text = shown(SITUATIONS["failed"], 120, color=True)
    assert "\x1b[1;31mfailed" in text and "\x1b[32mdone" in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([1.0], SPARKS[0]),
        ([2.0, 2.0, 2.0], SPARKS[0] * 3),
        ([0.0, 7.0], SPARKS[0] + SPARKS[-1]),
        (list(range(8)), SPARKS),
        ([3.0, 2.0, 1.0, -4.0], "█▇▆▁"),
    ],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest(values, expected):
    assert sparkline(values) == expected


def test_plain_lines():
    assert plain_line(stage_of("train", queued("train", "PENDING", reason="Priority"))) == (
        "train: pending (waiting: Priority)"
    )
    running = stage_of(
        "train", said("train", "running", restart=1, progress=progress(3, 7)), queued("train", "RUNNING")
    )
    assert plain_line(running) == "train: running (3/7 steps · 1:23 of 12:00:00 · 1 restart)"
    failed = stage_of("train", said("train", "failed", message="the loss is nan", log="logs/train/102_0/0.err"))
    assert plain_line(failed) == "train: failed: the loss is nan [logs/train/102_0/0.err]"
    silent = stage_of("train", said("train", "failed"))
    assert plain_line(silent) == "train: failed: see the log"
    assert plain_line(stage_of("train", said("train", "done"))) == "train: done"


def running(steps: int, **more: Any) -> RunState:
    status = said("train", "running", progress=progress(steps), **more)
    return state_of(*done("preprocess"), status, queued("train", "RUNNING"), *waiting("generate", "judge", "report"))


def test_the_first_look_tells_everything():
    lines = changed_lines(None, running(3))
    assert [line.split(":")[0] for line in lines] == [*PLAN.stage_names, "run"]
    assert lines[-1] == "run: running"


def test_nothing_changed_is_no_line():
    assert changed_lines(running(3), running(3)) == []
    assert changed_lines(running(3), running(9)) == []  # progress counts in tenths
    assert changed_lines(SITUATIONS["no answer"], SITUATIONS["no answer"]) == []


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (running(10), ["train: running (10/100 steps · 1:23 of 12:00:00)"]),
        (running(3, restart=1), ["train: running (3/100 steps · 1:23 of 12:00:00 · 1 restart)"]),
    ],
)
def test_each_change_is_one_line(after, expected):
    assert changed_lines(running(3), after) == expected


def test_an_end_is_told_with_the_state_of_the_run():
    lines = changed_lines(running(3), SITUATIONS["failed"])
    assert lines[0].startswith("train: failed: CUDA out of memory") and lines[-1] == "run: failed"
    assert [line.split(":")[0] for line in lines] == ["train", "generate", "judge", "report", "run"]


def test_a_silence_of_slurm_is_told_once():
    before = running(3)
    after = before.model_copy(update={"problem": "squeue does not answer"})
    assert changed_lines(before, after) == ["slurm: squeue does not answer"]
    assert changed_lines(after, after) == []
    assert changed_lines(after, before) == []
