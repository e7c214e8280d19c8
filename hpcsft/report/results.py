"""Gathers what a run found out into one document. Reads the run directory, decides nothing about its looks."""

from __future__ import annotations

import itertools
from typing import Any

from hpcsft.data.shards import read_manifest
from hpcsft.evaluate.judges import judge_name
from hpcsft.evaluate.outputs import read_answers
from hpcsft.evaluate.scores import Difference, Scores, compare, score
from hpcsft.records import Record, read_json, read_jsonl
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec


class CheckpointResult(Record):
    """One row of the table."""

    checkpoint: str
    validation_loss: float | None
    scores: Scores | None
    num_empty: int = 0
    """Answers without text."""
    num_cut: int = 0
    """Answers that were cut at max_new_tokens."""


class Results(Record):
    """report.json."""

    name: str
    run_dir: str
    judge: str | None
    orders: str | None
    num_prompts: int
    checkpoints: list[CheckpointResult]
    differences: list[Difference]
    training: dict[str, Any]
    data: dict[str, Any]
    provenance: dict[str, Any]


def gather_results(run: RunDir, spec: ExperimentSpec) -> Results:
    """Everything that the report shows."""
    losses = {row["checkpoint"]: row["loss"] for row in read_jsonl(run.validation)}
    evaluated = spec.evaluated_checkpoints()
    annotations = {name: read_json(run.evaluate / name / "annotations.json") for name in evaluated}
    rows = []
    for name in spec.all_checkpoints():
        answers = list(read_answers(run, name).values())
        rows.append(
            CheckpointResult(
                checkpoint=name,
                validation_loss=losses.get(name),
                scores=score(annotations[name]) if name in annotations else None,
                num_empty=sum(not answer.output for answer in answers),
                num_cut=sum(answer.finish == "length" for answer in answers),
            )
        )
    pairs = [(evaluated[0], name) for name in evaluated[1:]] + list(itertools.pairwise(evaluated[1:]))
    differences = [compare(a, annotations[a], b, annotations[b]) for a, b in pairs]
    provenance = read_json(run.provenance)
    return Results(
        name=spec.name,
        run_dir=str(run.path),
        judge=judge_name(spec.evaluate.judge) if spec.evaluate else None,
        orders=spec.evaluate.judge.orders if spec.evaluate else None,
        num_prompts=len(next(iter(annotations.values()), [])),
        checkpoints=rows,
        differences=[difference for difference in differences if difference],
        training=_training(run),
        data=_data(run),
        provenance={key: provenance.get(key) for key in ("time", "host", "commit", "python", "packages")},
    )


def _training(run: RunDir) -> dict[str, Any]:
    steps = list(read_jsonl(run.metrics))
    if not steps:
        return {}
    starts = [row for row in read_jsonl(run.journal_file("train", 0, 1)) if row["event"] == "start"]
    losses = [row["loss"] for row in steps if row["loss"] is not None]
    seconds = sum(row["tokens"] / row["tokens_per_s"] for row in steps)
    return {
        "steps": steps[-1]["step"],
        "skipped": sum("skipped" in row for row in steps),
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "tokens": sum(row["tokens"] for row in steps),
        "supervised_tokens": sum(row["supervised_tokens"] for row in steps),
        "step_seconds": round(seconds, 1),
        "attempts": len(starts),
    }


def _data(run: RunDir) -> dict[str, Any]:
    manifest = read_manifest(run.manifest)
    fields = ("rows", "tokens", "supervised_tokens")
    splits = {s: {field: manifest.total(s, field) for field in fields} for s in ("train", "validation")}
    return {**splits, "counts": manifest.counts}
