"""A run directory as it is when `report` starts, written by hand: every number is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpcsft.data.figures import fate, row_figures
from hpcsft.data.shards import Manifest, Shard, Totals
from hpcsft.evaluate.checks import Checks
from hpcsft.evaluate.generation.conditions import Conditions, conditions_file
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
    shard = Shard(
        source="train",
        number=0,
        fingerprint="f",
        file="train-00000.arrow",
        size_bytes=100,
        rows=100,
        tokens=4000,
        counts={},
        bad_rows=2,
    )
    (run.data / shard.file).write_bytes(b"x" * shard.size_bytes)
    splits = {
        split: Totals(conversations=rows, rows=rows, tokens=2000, supervised_tokens=500)
        for split, rows in (("train", 90), ("validation", 10))
    }
    counts = {"conversations_read": 1234, "conversations_dropped": 5, "conversations_quarantined": 2}
    manifest = Manifest(
        fingerprint="f", template=None, validation_below=0, seed=0, shards=[shard], splits=splits, counts=counts
    )
    write_json(run.manifest, manifest)
    write_json(run.audit, made_audit(spec, manifest))
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
        write_json(conditions_file(run, name), conditions())
    if evaluated:
        write_json(run.checks, {name: checks(name).model_dump() for name in evaluated})
    return run, spec


def made_audit(spec: ExperimentSpec, manifest: Manifest) -> dict[str, Any]:
    """An audit with figures of its own; test_data_page.py checks that real ones have this shape."""
    lengths = np.arange(1, spec.data.max_length + 1)
    bad = {"file": "a.jsonl", "row": 3, "reason": "turn 1 is empty", "excerpt": "{}"}
    runs = [{"text": "<s>", "learnt": False, "special": True}, {"text": "learn me", "learnt": True, "special": False}]
    return {
        "rules": spec.data.model_dump(mode="json", exclude={"train", "cache"}),
        "splits": {split: totals.model_dump() for split, totals in manifest.splits.items()},
        "train": row_figures(lengths, lengths // 2, spec),
        "fate": fate(manifest.counts, 4000),
        "quarantine": {"reasons": [{"reason": "turn N is empty", "rows": 2}], "first": [bad]},
        "samples": [{"row": 17, "tokens": 3, "runs": runs}],
    }


def annotations(name: str) -> list[dict[str, Any]]:
    """AlpacaEval's annotations of one model; it stood first in half of them, and once in both places."""
    return [
        {
            "instruction": f"question {row}",
            "output_1": "y" * (40 - 3 * row),
            "generator_1": "teacher",
            "output_2": "x" * (10 + row),
            "generator_2": f"tiny/{name}",
            "dataset": "ab"[row % 2],
            "annotator": "local/tiny",
            "preference": preference,
            "orders": [
                {"model_first": first, "preference": preference, "raw": ""}
                for first in ([True, False] if row == 0 else [row % 2 == 0])
            ],
        }
        for row, preference in enumerate(PREFERENCES[name])
    ]


def checks(name: str) -> Checks:
    """Two answers are empty and three are cut; of the base model only."""
    return Checks(num_answers=8, empty=2, cut=3) if name == "base" else Checks(num_answers=8)


def conditions(dtype: str = "float32") -> Conditions:
    """How the answers were made."""
    return Conditions(
        settings={"max_new_tokens": 16, "temperature": 0.0},
        seed=42,
        template="user_assistant",
        stop_tokens=[2],
        stop_texts=["\nUser:"],
        batching="sorted",
        dtype=dtype,
        attention="sdpa",
        device="cpu",
        device_name="",
        versions={"torch": "2.13", "transformers": "5.23"},
    )


def benchmarks(run: RunDir, names: tuple[str, ...] = CHECKPOINTS) -> None:
    """What lm-evaluation-harness left for each checkpoint."""
    for place, name in enumerate(names):
        (run.benchmark / name).mkdir(parents=True)
        figures = {
            "acc,none": {"value": 0.25 * (place + 1), "stderr": 0.01},
            "f1,strict": {"value": 0.5, "stderr": None},
        }
        settings = {"num_fewshot": 3, "limit": None, "apply_chat_template": False, "lm_eval": "0.4.13"}
        write_json(run.benchmark / name / "results.json", {"tasks": {"trivia": figures}, "settings": settings})
