"""What can be said about rows from their lengths and counts alone: how long, how full, what became of the rest. Pure.

R rows. Everything is plain numbers and texts that JSON takes, and depends on the lengths and their order only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hpcsft.data.hashing import mix
from hpcsft.data.packing import pack
from hpcsft.spec import ExperimentSpec

BINS = 40
"""Bars of a histogram, at most."""

REASONS = 20
"""Groups of quarantined rows that are listed."""

DROPPED = {
    "dropped_filter_turns": "number of turns outside data.filter",
    "dropped_filter_tokens": "number of tokens outside data.filter",
    "dropped_overlong": "over data.max_length, and data.overlong is drop",
    "dropped_also_in_validation": "also in the files of data.validation",
    "dropped_without_loss": "no supervised token left: cut off at data.max_length, or lost by split_reference",
}
"""What the counts of preprocessing call a reason -> what it is called here."""


def row_figures(lengths: np.ndarray, num_supervised: np.ndarray, spec: ExperimentSpec) -> dict[str, Any]:
    """Figures of R rows, from the tokens [R] and the supervised tokens [R] of each."""
    tokens, supervised = int(lengths.sum(dtype=np.int64)), int(num_supervised.sum(dtype=np.int64))
    return {
        "rows": len(lengths),
        "tokens": tokens,
        "supervised_tokens": supervised,
        "supervised_share": share(supervised, tokens),
        "lengths": histogram(lengths, spec.data.max_length),
        "supervised": histogram(num_supervised, spec.data.max_length),
        "packing": packing(lengths, spec),
    }


def share(part: float, whole: float) -> float | None:
    """part / whole to four digits; None of nothing."""
    return round(part / whole, 4) if whole else None


def histogram(values: np.ndarray, most: int) -> dict[str, Any]:
    """Bar b counts the values of more than b * width and at most (b + 1) * width; 0 counts with the first bar."""
    width = -(-most // BINS)
    bars = np.bincount(np.maximum(values.astype(np.int64) - 1, 0) // width, minlength=-(-most // width))
    found = {"median": 50, "p95": 95, "max": 100} if len(values) else {}
    return {
        "width": width,
        "bars": bars.tolist(),
        **{name: int(np.percentile(values, q, method="inverted_cdf")) for name, q in found.items()},
    }


def packing(lengths: np.ndarray, spec: ExperimentSpec) -> dict[str, Any]:
    """How rows fill the micro batches of one epoch, and what padding would have cost.

    `filled_share` is of micro_batch_size x max_length positions each; no position that is not filled is computed.
    `padded_real_share` is the share of real tokens if micro_batch_size rows were padded to the longest of them.
    """
    size, longest = spec.train.micro_batch_size, spec.data.max_length
    per_step = max(1, spec.train.global_batch_size // size)  # a spec that is looked at need not have a plan
    tokens = int(lengths.sum(dtype=np.int64))
    starts = np.arange(0, len(lengths), size)
    shuffled = lengths[np.argsort(mix(np.arange(len(lengths)), spec.seed, 0))].astype(np.int64)
    rows_in = np.diff(np.append(starts, len(lengths)))
    padded = int((np.maximum.reduceat(shuffled, starts) * rows_in).sum()) if len(lengths) else 0
    num_batches = pack(lengths, size * longest).num_batches if spec.data.packing else len(starts)
    return {
        "packing": spec.data.packing,
        "micro_batches": num_batches,
        "steps": -(-num_batches // per_step),
        "positions_per_micro_batch": size * longest,
        "filled_share": share(tokens, num_batches * size * longest),
        "padded_real_share": share(tokens, padded),
    }


def fate(counts: Mapping[str, int], tokens: int) -> dict[str, Any]:
    """What became of every row that was read, from the counts of preprocessing: read = kept + dropped + quarantined.

    `tokens` are those of all rows that were made.
    """
    found = Counter(counts)
    cut = ("conversations_overlong", "rows_truncated", "tokens_truncated", "rows_without_loss", "exchanges_lost")
    return {
        "read": found["conversations_read"],
        "kept": found["conversations_kept"],
        "dropped": found["conversations_dropped"],
        "quarantined": found["conversations_quarantined"],
        "dropped_because": {words: found[name] for name, words in DROPPED.items() if found[name]},
        **{name: found[name] for name in cut},
        "tokens_read": found["tokens_read"],
        "tokens_in_rows": tokens,
        "tokens_in_rows_share": share(tokens, found["tokens_read"]),
    }


def group_reasons(reasons: Iterable[str]) -> list[dict[str, Any]]:
    """How often each reason occurs, the most frequent first; reasons that differ in numbers only are one."""
    groups = Counter(re.sub(r"\d+", "N", reason) for reason in reasons)
    ordered = sorted(groups.items(), key=lambda group: (-group[1], group[0]))
    listed = [{"reason": reason, "rows": rows} for reason, rows in ordered[:REASONS]]
    rest = sum(rows for _, rows in ordered[REASONS:])
    return listed + ([{"reason": "other reasons", "rows": rest}] if rest else [])
