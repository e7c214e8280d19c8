"""The audit of preprocessing: how much there is, how it is shaped, what became of every row, and ten rows to read."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hpcsft.data.figures import fate, group_reasons, row_figures
from hpcsft.data.hashing import mix
from hpcsft.data.readable import RunReader
from hpcsft.data.shards import Manifest
from hpcsft.records import read_jsonl
from hpcsft.spec import ExperimentSpec

SAMPLED_ROWS = 10
"""Decoded rows in the audit."""

SHOWN_BAD_ROWS = 10
"""Quarantined rows in the audit; the others stand in data/quarantine.jsonl."""


def audit(manifest: Manifest, folder: Path, spec: ExperimentSpec, tokenizer: Any) -> dict[str, Any]:
    """data/audit.json, for the shards and the quarantine.jsonl in `folder`. Memory: some bytes for each row.

    Figures are of training rows; counts and quarantine are of all rows that were read, of both splits.
    """
    from hpcsft.data.batches import RowStore  # here, because it loads torch, which a preview does without

    rows = RowStore(folder, manifest, "train")
    tokens = sum(manifest.total(split, "tokens") for split in manifest.splits)
    quarantine = folder / "quarantine.jsonl"
    reader = RunReader(tokenizer)
    return {
        "rules": spec.data.model_dump(mode="json", exclude={"train", "cache"}),
        "splits": {split: totals.model_dump() for split, totals in manifest.splits.items()},
        "train": row_figures(rows.lengths, rows.num_supervised, spec),
        "fate": fate(manifest.counts, tokens),
        "quarantine": {
            "reasons": group_reasons(bad["reason"] for bad in read_jsonl(quarantine)),
            "first": list(islice(read_jsonl(quarantine), SHOWN_BAD_ROWS)),
        },
        "samples": [{"row": row + 1, **read_row(reader, *rows.row(row))} for row in _drawn(len(rows), spec.seed)],
    }


def read_row(reader: RunReader, input_ids: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """One row as a person reads it."""
    runs = reader.runs(input_ids.tolist(), labels.tolist())
    return {"tokens": len(input_ids), "runs": [run._asdict() for run in runs]}


def _drawn(num_rows: int, seed: int) -> list[int]:
    hashes = mix(np.arange(num_rows), seed, -1)  # no epoch has this number
    return sorted(np.argsort(hashes)[:SAMPLED_ROWS].tolist())


def summary(manifest: Manifest) -> str:
    """The same in one line, for the log."""
    train, held_out = manifest.total("train", "rows"), manifest.total("validation", "rows")
    tokens, supervised = manifest.total("train", "tokens"), manifest.total("train", "supervised_tokens")
    lost = [
        f"{manifest.counts[name]} conversations {words}"
        for name, words in (("conversations_dropped", "dropped"), ("conversations_quarantined", "quarantined"))
        if manifest.counts.get(name)
    ]
    made = f"{train} training rows, {tokens} tokens ({100 * supervised / tokens:.0f}% supervised)"
    return "; ".join([made, f"{held_out} validation rows", *lost])
