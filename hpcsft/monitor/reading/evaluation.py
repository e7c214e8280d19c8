"""How far the evaluation is: answers that are made, verdicts as they come in. It only reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpcsft.monitor.reading.files import Files
from hpcsft.monitor.state.facts import Judged
from hpcsft.records import read_json, read_jsonl
from hpcsft.rundir import RunDir


def read_judged(run: RunDir, spec: dict[str, Any], files: Files) -> list[Judged]:
    """Every checkpoint and other model that is evaluated and has an answer already, in the order of training."""
    wanted = spec.get("evaluate")
    if not wanted:
        return []
    names = ["base", *(f"epoch-{epoch + 1}" for epoch in range(spec["train"]["epochs"])), *wanted["outputs"]]
    final = files.read(run.report / "report.json", _final) or {}
    found = []
    for name in names:
        folder = run.evaluate / name
        if not folder.is_dir():
            continue
        made = [files.read(file, _num_lines) or 0 for file in folder.glob("answers-*.jsonl")]
        verdicts = files.read(folder / "verdicts.jsonl", verdicts_of_newest_judge) or []
        found.append(Judged(name=name, answers=sum(made), verdicts=verdicts, final=final.get(name)))
    return found


def verdicts_of_newest_judge(path: Path) -> list[tuple[int, float]]:
    """Row of the prompt and utility of the model's answer, of all verdicts of the judge that spoke last."""
    rows = [row for row in read_jsonl(path) if row["first_better"] is not None]
    latest = {
        (row["row"], row["model_first"]): row["first_better"] if row["model_first"] else 1 - row["first_better"]
        for row in rows
        if row.get("judge") == rows[-1].get("judge")
    }
    return [(row, utility) for (row, _), utility in sorted(latest.items())]


def _num_lines(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _final(path: Path) -> dict[str, Any]:
    try:
        models = read_json(path)["models"]
        scores = {model["name"]: model["scores"] for model in models if model["scores"]}
        return {
            name: {key: found.get(key) for key in ("win_rate", "interval", "n_total")} for name, found in scores.items()
        }
    except (json.JSONDecodeError, KeyError, TypeError):
        return {}  # of another version
