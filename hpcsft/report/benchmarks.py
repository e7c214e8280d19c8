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
    return values, _settings(spec, list(files.values()))


def _settings(spec: ExperimentSpec, documents: list[dict[str, Any]]) -> dict[str, Any]:
    """The settings of all; tasks whose files changed between checkpoints are named in `not_comparable`."""
    if not documents or spec.benchmark is None:
        return {}
    settings = dict(documents[0]["settings"])
    sources = [document.get("sources", {}) for document in documents]
    if mixed := [task for task in spec.benchmark.tasks if len({each.get(task) for each in sources}) > 1]:
        hint = "their files changed between checkpoints; python jobs/benchmark.py RUN_DIR measures them again"
        settings["not_comparable"] = f"{', '.join(mixed)}: {hint}"
    return settings
