"""Guards that the line shown to a person is the one that says why: not an echo, an epilogue or a warning."""

from __future__ import annotations

import random
import time

import pytest

from hpcsft.monitor.failure.deciding_line import deciding_line, most_telling, plain
from hpcsft.monitor.failure.signs import SIGNS
from tests.monitor.failure.excerpts import EXCERPTS, FRAMES, GLOO

IN_OWN_WORDS = "a setup in words of its own"
"""No line of a log by itself tells why; that there was nothing else does."""


@pytest.mark.parametrize("name", EXCERPTS.keys() - {IN_OWN_WORDS})
def test_the_line_that_decides_is_found(name: str) -> None:
    excerpt = EXCERPTS[name]
    found = deciding_line(excerpt.lines)
    told = None if found is None else excerpt.lines[found]
    assert found == excerpt.decisive, f"took {told!r}"


@pytest.mark.parametrize("name", EXCERPTS.keys() - {IN_OWN_WORDS})
def test_colours_and_progress_bars_hide_nothing(name: str) -> None:
    excerpt = EXCERPTS[name]
    painted = [
        line if line[:1].isspace() else f" 50%|## | 5/10 [00:01]\r\x1b[31m{line}\x1b[0m\r\n" for line in excerpt.lines
    ]
    assert deciding_line(painted) == excerpt.decisive


def test_what_a_line_shows_is_safe_on_a_terminal() -> None:
    assert plain("\x1b]0;owned\x07a\x1b[2J\tb\x9b31mc\u202e\udc80\r\n") == "]0;owneda b31mc"
    assert plain("10%\r20%\rdone\n") == "done"
    assert plain("x" * 10_000 + "\rlast") == "last" and len(plain("x" * 10_000)) == 500


def test_the_first_of_several_failures_counts() -> None:
    lines = [*FRAMES.splitlines(), "KeyError: 1", *FRAMES.splitlines(), "ValueError: 2"]
    assert lines[deciding_line(lines) or 0] == "KeyError: 1"


def test_of_several_logs_the_one_that_says_most() -> None:
    echo, killed, code = (
        [*FRAMES.splitlines(), GLOO],
        ["srun: error: n2: task 1: Killed"],
        [*FRAMES.splitlines(), "KeyError: 1"],
    )
    exited = ["srun: error: n2: task 1: Exited with exit code 1"]
    assert most_telling([echo, [], killed]) == 2
    assert most_telling([exited, code, echo]) == 1
    assert most_telling([echo, exited]) == 1
    assert (
        most_telling([killed, ["watchdog: rank 0 has been in phase step 9 for 15 s (budget 15 s); stacks follow"]]) == 1
    )
    assert most_telling([echo, code, code]) == 1
    cancelled = ["slurmstepd: error: *** JOB 19 ON n1 CANCELLED AT 2026-11-30T03:59:00 ***"]
    assert most_telling([["error: stopped after step 3: SIGTERM"], cancelled]) == 1
    assert most_telling([[*FRAMES.splitlines(), "KeyboardInterrupt"], killed]) == 1
    assert most_telling([[], ["fine"]]) is None and most_telling([]) is None


def test_signs_are_written_as_they_are_compared() -> None:
    for sign in SIGNS:
        assert sign.words == sign.words.lower() and all(sign.words.split("|"))


def test_no_log_makes_it_stumble() -> None:
    chance = random.Random(7)
    texts = [line for excerpt in EXCERPTS.values() for line in excerpt.lines]
    for _ in range(300):
        lines = [
            chance.choice(texts)
            if chance.random() < 0.5
            else bytes(chance.randrange(256) for _ in range(chance.randrange(60))).decode(errors="surrogateescape")
            for _ in range(chance.randrange(40))
        ]
        found = deciding_line(lines)
        assert found is None or 0 <= found < len(lines)
        assert all(plain(line).isprintable() for line in lines)


@pytest.mark.parametrize(
    "line",
    [
        "[2026-11-30 03:58:48,224] [INFO] [logging.py:123:log_dist] [Rank 0] step=10, skipped=0, lr=[1e-05]",
        "Traceback (most recent call last):",
        "RuntimeError: connection reset by peer",
        "error: " * 20,
        "a." * 500,
        "x" * 5000,
    ],
)
def test_a_long_log_takes_time_in_proportion(line: str) -> None:
    def took_s(num_lines: int) -> float:
        lines = [line] * num_lines
        began_s = time.process_time()
        deciding_line(lines)
        return time.process_time() - began_s

    took_s(100)
    assert took_s(8_000) < 16 * took_s(2_000) + 0.05
