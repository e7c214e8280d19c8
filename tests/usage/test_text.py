"""What is read at the end of a run: short lines, one below the other, with settings to paste."""

from __future__ import annotations

import pytest

from hpcsft.usage.record import Advice, Usage
from hpcsft.usage.text import duration, usage_lines
from tests.usage.test_advice import hours, used

TRAIN = used(
    attempts=4,
    restarts={"preemption": 2, "node_failure": 1},
    queue_s=600,
    requeue_s=1800,
    longest_attempt_s=7200,
    memory_gb=31.24,
    asked_memory_gb=64,
    steps_again=31,
    hours=hours(work=60, steps_again=3, data=0.25),
)


def lines(*advice: Advice, width: int = 100) -> list[str]:
    return usage_lines(Usage(stages=[TRAIN, used("report")], totals=[TRAIN.hours], advice=list(advice)), width)


def test_all_of_it_stands_in_lines_below_each_other():
    assert lines() == [
        "train   ran 9 h 00 min in 4 attempts (preemption 2, node failure 1) · queued 40 min",
        "        20% of the time limit · 31.2 of 64 GB",
        "        63 GPU-hours: 95% computed, 5% lost, under 1% waiting · 31 steps done again",
        "report  ran 9 h 00 min · queued 1 min · 90% of the time limit · 9.00 GPU-hours",
        "total   63 GPU-hours: 95% computed, 5% lost, under 1% waiting",
    ]


def test_a_setting_can_be_pasted_and_is_never_broken():
    less = Advice(stage="train", text="used 20% of the time limit", field="cluster.train.time", value="06:00:00")
    assert lines(less)[-1] == "advice: train used 20% of the time limit: --set cluster.train.time=06:00:00"
    assert lines(less, width=60)[-2:] == [
        "advice: train used 20% of the time limit:",
        "        --set cluster.train.time=06:00:00",
    ]
    assert lines(Advice(stage=None, text="waited"))[-1] == "advice: it waited"


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_nothing_is_wider_than_the_screen(width):
    long = Advice(stage="train", text="a word " * 40, field="cluster.train.time", value="06:00:00")
    for line in lines(long, width=width):
        assert len(line) <= width or " · " not in line
    assert all(len(line) <= width for line in lines(long, width=width) if not line.startswith(("train", "  ", "total")))


def test_on_gpus_their_memory_is_what_counts():
    gpu = TRAIN.model_copy(update={"gpu_memory_gb": 40.0, "gpu_total_gb": 84.987})
    (line,) = [line for line in usage_lines(Usage(stages=[gpu], totals=[], advice=[])) if "GB" in line]
    assert "40.0 of 85 GB of a GPU" in line and "64" not in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3570, "1 h 00 min"), (19230, "5 h 20 min"), (273600, "3 d 4 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
