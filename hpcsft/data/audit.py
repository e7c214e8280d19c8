"""What preprocessing kept, dropped and masked, and rows as the model will see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from hpcsft.data.encode import IGNORE_INDEX
from hpcsft.data.shards import Manifest

SAMPLED_ROWS = 10
"""Decoded rows in the audit."""


def audit(manifest: Manifest, folder: Path, tokenizer: Any) -> dict[str, Any]:
    """data/audit.json: what was kept, dropped and masked, with rows as the model will see them."""
    splits = {
        split: {field: manifest.total(split, field) for field in ("rows", "tokens", "supervised_tokens")}
        for split in ("train", "validation")
    }
    first = manifest.files("train")[0]
    bad_rows = [bad.model_dump() for shard in manifest.shards for bad in shard.bad_rows]
    return {
        "splits": splits,
        "counts": manifest.counts,
        "bad_rows": bad_rows[:100],
        "samples": _decoded_rows(folder / first.file, tokenizer),
    }


def _decoded_rows(file: Path, tokenizer: Any) -> list[list[dict[str, Any]]]:
    """The first rows as runs of text, each with whether it is learnt."""
    with pa.memory_map(str(file)) as source:
        rows = pa.ipc.open_stream(source).read_all().slice(0, SAMPLED_ROWS).to_pylist()
    decoded = []
    for row in rows:
        runs: list[tuple[bool, list[int]]] = []
        for token, label in zip(row["input_ids"], row["labels"], strict=True):
            learnt = label != IGNORE_INDEX
            if not runs or runs[-1][0] != learnt:
                runs.append((learnt, []))
            runs[-1][1].append(token)
        decoded.append([{"learnt": learnt, "text": tokenizer.decode(ids)} for learnt, ids in runs])
    return decoded


def summary(manifest: Manifest) -> str:
    """The same in one line, for the log."""
    train, held_out = manifest.total("train", "rows"), manifest.total("validation", "rows")
    tokens, supervised = manifest.total("train", "tokens"), manifest.total("train", "supervised_tokens")
    share = 100 * supervised / tokens
    return f"{train} training rows, {tokens} tokens ({share:.0f}% supervised); {held_out} validation rows"
