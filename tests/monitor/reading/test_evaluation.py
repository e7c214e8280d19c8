"""Guards answers and verdicts that are counted while they come in."""

from __future__ import annotations

from typing import Any

import pytest

from hpcsft.monitor.reading.evaluation import read_judged
from hpcsft.monitor.reading.files import Files
from hpcsft.records import append_jsonl, write_json
from hpcsft.rundir import RunDir

SPEC = {"train": {"epochs": 2}, "evaluate": {"outputs": {"falcon": "x.json"}}}


@pytest.fixture
def run(tmp_path) -> RunDir:
    run = RunDir(tmp_path / "run")
    for name in ("base", "epoch-1"):
        (run.evaluate / name).mkdir(parents=True)
    return run


def verdict(row: int, model_first: bool, first_better: float | None, judge: str = "a") -> dict[str, Any]:
    return {"key": "k", "row": row, "model_first": model_first, "first_better": first_better, "raw": "", "judge": judge}


def test_no_evaluation_is_nothing(run):
    assert read_judged(run, {"train": {"epochs": 2}, "evaluate": None}, Files()) == []
    assert read_judged(run, {}, Files()) == []


def test_answers_of_all_tasks_are_counted(run):
    append_jsonl(run.evaluate / "base" / "answers-0000.jsonl", {"row": 0}, {"row": 2})
    append_jsonl(run.evaluate / "base" / "answers-0001.jsonl", {"row": 1})
    found = read_judged(run, SPEC, Files())
    assert [(model.name, model.answers) for model in found] == [("base", 3), ("epoch-1", 0)]


def test_verdicts_are_utilities_of_the_models_answer(run):
    file = run.evaluate / "base" / "verdicts.jsonl"
    append_jsonl(file, verdict(0, True, 1.0), verdict(0, False, 1.0), verdict(1, True, 0.25), verdict(2, True, None))
    assert read_judged(run, SPEC, Files())[0].verdicts == [(0, 0.0), (0, 1.0), (1, 0.25)]


def test_the_judge_that_spoke_last_counts_and_its_last_word(run):
    file = run.evaluate / "base" / "verdicts.jsonl"
    append_jsonl(file, verdict(0, True, 1.0, "old"), verdict(0, True, None), verdict(0, True, 0.0))
    assert read_judged(run, SPEC, Files())[0].verdicts == [(0, 0.0)]


def test_the_reports_figures_are_read(run):
    scores = {"win_rate": 21.4, "interval": [18.0, 25.0], "n_total": 805, "more": 1}
    models = [{"name": "base", "scores": scores}, {"name": "epoch-1", "scores": None}]
    run.report.mkdir()
    write_json(run.report / "report.json", {"models": models})
    found = read_judged(run, SPEC, Files())
    assert found[0].final == {"win_rate": 21.4, "interval": [18.0, 25.0], "n_total": 805} and found[1].final is None


@pytest.mark.parametrize("text", ["", "{}", '{"models": [{}]}', "[1]"])
def test_a_report_of_another_kind_is_passed_over(run, text):
    run.report.mkdir()
    (run.report / "report.json").write_text(text)
    assert read_judged(run, SPEC, Files())[0].final is None
