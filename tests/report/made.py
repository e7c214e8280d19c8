"""A run directory as it is when `report` starts, written by hand: every number is known."""

from __future__ import annotations

from typing import Any

from hpcsft.data.shards import Manifest, Shard, ShardFile
from hpcsft.evaluate.outputs import Answer, append_answers, journal
from hpcsft.records import append_jsonl, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec, parse_spec
from tests.prepared import new_run

CHECKPOINTS = ("base", "epoch-1", "epoch-2")
PREFERENCES: dict[str, list[float | None]] = {
    "base": [1.0, 1.0, 1.0, 1.0, 1.0, 1.5, 2.0, None],
    "epoch-1": [2.0, 2.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0],
    "epoch-2": [2.0, 2.0, 2.0, 1.0, 2.0, 2.0, 2.0, 1.5],
}


def finished_run(values: dict[str, Any], evaluated: tuple[str, ...] = CHECKPOINTS) -> tuple[RunDir, ExperimentSpec]:
    """The run of `values` with everything that training left, and the evaluation of `evaluated`."""
    run, spec = new_run(values), parse_spec(values)
    files = []
    for split, rows in (("train", 90), ("validation", 10)):
        path = run.data / f"train-00000.{split}.arrow"
        path.write_bytes(b"x" * rows)
        files.append(
            ShardFile(split=split, file=path.name, rows=rows, tokens=2000, supervised_tokens=500, size_bytes=rows)
        )
    counts = {"conversations_read": 1234, "conversations_dropped": 5, "rows_bad": 2}
    write_json(
        run.manifest, Manifest(fingerprint="f", shards=[Shard(files=files, counts={}, bad_rows=[])], counts=counts)
    )
    for step in range(1, 5):
        row = {"step": step, "loss": 4.0 / step, "tokens": 1000, "supervised_tokens": 100, "tokens_per_s": 500.0}
        append_jsonl(run.metrics, row)
    for event in ("start", "failed", "start", "done"):
        append_jsonl(run.journal_file("train", 0, 1), {"stage": "train", "event": event})
    for epoch, name in enumerate(CHECKPOINTS):
        append_jsonl(run.validation, {"checkpoint": name, "epoch": epoch, "step": epoch, "loss": 3.0 - epoch / 4})
    for name in evaluated:
        (run.evaluate / name).mkdir(parents=True)
        write_json(run.evaluate / name / "annotations.json", annotations(name))
        append_answers(journal(run, name, 0), answers(name))
    return run, spec


def annotations(name: str) -> list[dict[str, Any]]:
    """AlpacaEval's annotations of one checkpoint; the model stood first in half of them."""
    return [
        {
            "instruction": f"question {row}",
            "output_2": "x" * (10 + row),
            "preference": preference,
            "orders": [{"model_first": row % 2 == 0, "preference": preference, "raw": ""}],
        }
        for row, preference in enumerate(PREFERENCES[name])
    ]


def answers(name: str) -> list[Answer]:
    """Two are empty and three are cut; of the base model only."""
    base = name == "base"
    return [
        Answer(
            row=row,
            instruction=f"question {row}",
            output="" if base and row < 2 else "text",
            finish="length" if base and row < 3 else "stop",
            num_tokens=1,
        )
        for row in range(8)
    ]
