"""What lm-evaluation-harness found: benchmark/CHECKPOINT/results.json of every checkpoint, side by side."""

from __future__ import annotations

from typing import Any

from hpcsft.records import read_json
from hpcsft.report.document import BenchmarkValue
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec


def read_benchmarks(run: RunDir, spec: ExperimentSpec) -> tuple[list[BenchmarkValue], dict[str, Any]]:
    """Every figure of every task, and the settings under which they came about."""
    files = {name: read_json(run.benchmark / name / "results.json") for name in spec.benchmarked_checkpoints()}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name, document in files.items():
        for task, metrics in document["tasks"].items():
            for metric, figure in metrics.items():
                found.setdefault((task, metric), {})[name] = figure
    values = [
        BenchmarkValue(
            task=task,
            metric=metric,
            values={name: figure["value"] for name, figure in figures.items()},
            standard_errors={name: figure["stderr"] for name, figure in figures.items()},
        )
        for (task, metric), figures in found.items()
    ]
    return values, next(iter(files.values()))["settings"] if files else {}
