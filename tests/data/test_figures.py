"""Guards the figures of a data set against slow and plain ways to find them, and that no row is lost in a histogram."""

from __future__ import annotations

import json
import random
import statistics

import numpy as np
import pytest

from hpcsft.data.figures import BINS, REASONS, fate, group_reasons, histogram, row_figures, share
from hpcsft.data.order import TrainingOrder
from hpcsft.spec import parse_spec


def spec_of(**data):
    return parse_spec({"model": {"path": "/m"}, "data": {"train": ["/d"], **data}, "seed": 5})


def made_lengths(count: int, longest: int = 1024) -> np.ndarray:
    generator = random.Random(1)
    return np.array([generator.randint(2, longest) for _ in range(count)], dtype=np.int32)


@pytest.mark.parametrize("most", [16, 39, 40, 41, 100, 1024, 8192])
def test_every_row_is_in_the_bar_of_its_length(most):
    lengths = made_lengths(500, most)
    lengths[:2] = [1, most]
    found = histogram(lengths, most)
    assert len(found["bars"]) <= BINS and sum(found["bars"]) == 500
    for number, count in enumerate(found["bars"]):
        first, last = number * found["width"] + 1, (number + 1) * found["width"]
        assert count == sum(first <= length <= last for length in lengths)
    assert len(found["bars"]) * found["width"] >= most
    ordered = sorted(lengths.tolist())
    assert found["median"] == statistics.median_low(ordered)
    assert found["p95"] == ordered[474] and found["max"] == most


def test_no_rows_at_all_have_figures_too():
    nothing = np.zeros(0, dtype=np.int64)
    found = row_figures(nothing, nothing, spec_of())
    assert found["rows"] == found["packing"]["micro_batches"] == sum(found["lengths"]["bars"]) == 0
    assert found["supervised_share"] is found["packing"]["filled_share"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("count", [1, 2, 333])
def test_micro_batches_are_those_of_training(packing, count):
    spec, lengths = spec_of(packing=packing), made_lengths(count)
    found = row_figures(lengths, lengths // 2, spec)
    size = spec.train.micro_batch_size
    per_step = spec.train.global_batch_size // size

    def epoch(packing: bool) -> list[np.ndarray]:
        order = TrainingOrder(lengths, size, spec.data.max_length, packing, per_step, spec.seed)
        assert not packing or found["packing"]["steps"] == order.steps_per_epoch
        return [batch for step in range(order.steps_per_epoch) for batch in order.step(step) if len(batch)]

    batches = epoch(packing)
    tokens = int(lengths.sum())
    assert found["packing"]["micro_batches"] == len(batches)
    assert found["packing"]["filled_share"] == share(tokens, len(batches) * size * spec.data.max_length)
    padded = sum(len(batch) * max(lengths[batch]) for batch in epoch(False))
    assert found["packing"]["padded_real_share"] == share(tokens, padded)
    assert (found["rows"], found["tokens"], found["supervised_tokens"]) == (count, tokens, int((lengths // 2).sum()))


def test_a_micro_batch_larger_than_the_global_one_has_figures_too():
    """No plan allows it, but a preview looks at specs that have none."""
    spec = parse_spec(
        {"model": {"path": "/m"}, "data": {"train": ["/d"]}, "train": {"global_batch_size": 1, "micro_batch_size": 2}}
    )
    lengths = made_lengths(9)
    found = row_figures(lengths, lengths // 2, spec)["packing"]
    assert found["steps"] == found["micro_batches"] > 1


def test_every_conversation_that_was_read_is_told_of():
    counts = {
        "conversations_read": 30,
        "conversations_kept": 20,
        "conversations_dropped": 7,
        "conversations_quarantined": 3,
        "dropped_filter_turns": 4,
        "dropped_overlong": 3,
        "tokens_read": 1000,
        "tokens_truncated": 80,
    }
    found = fate(counts, 900)
    assert found["read"] == found["kept"] + found["dropped"] + found["quarantined"]
    assert found["dropped_because"] == {
        "number of turns outside data.filter": 4,
        "over data.max_length, and data.overlong is drop": 3,
    }
    assert (found["tokens_in_rows"], found["tokens_in_rows_share"]) == (900, 0.9)
    assert (found["tokens_truncated"], found["rows_truncated"]) == (80, 0)


def test_reasons_that_differ_in_numbers_are_one():
    found = group_reasons(["turn 3 is empty", "not UTF-8 text", "turn 12 is empty", "a", "a"])
    assert found == [
        {"reason": "a", "rows": 2},
        {"reason": "turn N is empty", "rows": 2},
        {"reason": "not UTF-N text", "rows": 1},
    ]


def test_rare_reasons_are_counted_together():
    reasons = [letter * 2 for letter in "abcdefghijklmnopqrstuvwxyz"]
    found = group_reasons(reasons + reasons[:1])
    assert len(found) == REASONS + 1
    assert found[0] == {"reason": "aa", "rows": 2}
    assert found[-1] == {"reason": "other reasons", "rows": len(reasons) - REASONS}
    assert group_reasons([]) == []
