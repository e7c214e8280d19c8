"""Gathers what a run found out into one document. Reads the run directory, decides nothing about its looks."""

from __future__ import annotations

import itertools
import os
from typing import Any

from hpcsft.data.shards import read_manifest
from hpcsft.evaluate.checks import Checks
from hpcsft.evaluate.generation.conditions import read_conditions
from hpcsft.evaluate.judges import judge_name
from hpcsft.evaluate.scores.annotations import Annotations, annotations_of, read_rows
from hpcsft.evaluate.scores.paired import compare
from hpcsft.evaluate.scores.published import Setting, evaluator_question
from hpcsft.evaluate.scores.sentences import noise_sentence
from hpcsft.evaluate.scores.summary import score
from hpcsft.records import read_json, read_jsonl
from hpcsft.report.benchmarks import read_benchmarks
from hpcsft.report.document import ModelResult, Results
from hpcsft.report.leaderboard import read_leaderboard
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec
from hpcsft.spec.evaluate import JudgeSpec


def gather_results(run: RunDir, spec: ExperimentSpec) -> Results:
    """Everything that the report shows."""
    losses = {row["checkpoint"]: row["loss"] for row in read_jsonl(run.validation)}
    checkpoints, others = spec.evaluated_checkpoints(), list(spec.evaluate.outputs) if spec.evaluate else []
    judged = {name: _annotations(run, name) for name in checkpoints + others}
    checks = read_json(run.checks) if judged else {}
    models = [
        ModelResult(
            name=name,
            is_checkpoint=name not in others,
            validation_loss=losses.get(name),
            scores=score(judged[name]) if name in judged else None,
            checks=Checks.model_validate(checks[name]) if name in judged else None,
            generation=read_conditions(run, name) if name in checkpoints else None,
        )
        for name in spec.all_checkpoints() + others
    ]
    differences = compare(list(judged.values()), pairs_shown(checkpoints, others))
    benchmarks, benchmark_settings = read_benchmarks(run, spec)
    provenance = read_json(run.provenance)
    return Results(
        name=spec.name,
        run_dir=str(run.path),
        setting=_setting(spec, judged) if judged else None,
        models=models,
        differences=differences,
        noise=noise_sentence(differences),
        benchmarks=benchmarks,
        benchmark_settings=benchmark_settings,
        leaderboards=[row for file in spec.evaluate.leaderboards for row in read_leaderboard(file)]
        if spec.evaluate
        else [],
        training=_training(run),
        data=_data(run),
        provenance={key: provenance.get(key) for key in ("time", "host", "commit", "python", "packages")},
    )


def pairs_shown(checkpoints: list[str], others: list[str]) -> list[tuple[str, str]]:
    """Each checkpoint against the first, each with the next, and the other models with the last checkpoint."""
    first, last = checkpoints[:1], checkpoints[-1:]
    pairs = list(itertools.product(first, checkpoints[1:])) + list(itertools.pairwise(checkpoints[1:]))
    return pairs + list(itertools.product(others, last))


def _annotations(run: RunDir, name: str) -> Annotations:
    return annotations_of(read_rows(run.evaluate / name / "annotations.json"), name)


def _setting(spec: ExperimentSpec, judged: dict[str, Annotations]) -> Setting:
    assert spec.evaluate is not None
    rows = max((model.rows for model in judged.values()), key=len)
    return Setting(
        judge=judge_name(spec.evaluate.judge),
        question=_question(spec.evaluate.judge),
        reference=next(iter(judged.values())).reference or "unknown",
        orders=spec.evaluate.judge.orders,
        num_prompts=len(rows),
        datasets=sorted({row.dataset for row in rows if row.dataset}),
    )


def _question(judge: JudgeSpec) -> str:
    if judge.evaluator:
        return evaluator_question(judge_name(judge))
    return f"template {os.path.basename(judge.template)}" if judge.template else "the built-in one"


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
