"""Guards that the report tells what happened: each number from its own file, checkpoints in the order of training,
every pair of models that a reader compares, and damaged or missing files named.
"""

from __future__ import annotations

import csv
import json

import pytest

from hpcsft.errors import InputError, StageError
from hpcsft.evaluate.scores.sentences import noise_sentence
from hpcsft.records import append_jsonl, read_json, write_json
from hpcsft.report.benchmarks import read_benchmarks
from hpcsft.report.document import Results
from hpcsft.report.report import report
from hpcsft.report.results import gather_results, pairs_shown
from tests.prepared import context_of
from tests.report.made import CHECKPOINTS, PREFERENCES, annotations, benchmarks, checks, conditions, finished_run


def test_every_number_comes_from_its_file(spec_values):
    run, spec = finished_run(spec_values)
    results = gather_results(run, spec)
    assert (results.name, results.run_dir) == ("tiny", str(run.path))
    judge = "local/" + spec.evaluate.judge.model.rsplit("/", 1)[1]
    assert results.setting.model_dump() == {
        "judge": judge,
        "question": "the built-in one",
        "reference": "teacher",
        "orders": "both",
        "num_prompts": 8,
        "datasets": ["a", "b"],
    }
    assert [model.name for model in results.models] == list(CHECKPOINTS)
    assert [model.validation_loss for model in results.models] == [3.0, 2.75, 2.5]
    assert [model.checks for model in results.models] == [checks(name) for name in CHECKPOINTS]
    assert [model.generation for model in results.models] == [conditions()] * 3
    scores = [model.scores for model in results.models]
    assert [s.win_rate for s in scores] == pytest.approx([100 * 1.5 / 7, 100 * 7 / 8, 100 * 6.5 / 8])
    assert [(s.n_wins, s.n_draws, s.n_wins_base, s.n_unparsed) for s in scores] == [
        (1, 1, 5, 1),
        (7, 0, 1, 0),
        (6, 1, 1, 0),
    ]
    assert {s.avg_length for s in scores} == {13}
    assert {s.position_bias.n_both_orders for s in scores} == {1}


@pytest.mark.parametrize(
    ("judge", "question"),
    [
        ({"template": "/own/strict.txt"}, "template strict.txt"),
        ({"kind": "openai", "evaluator": "/ae/alpaca_eval_gpt4/"}, "that of AlpacaEval's evaluator alpaca_eval_gpt4"),
    ],
)
def test_the_question_is_told(spec_values, judge, question):
    spec_values["evaluate"]["judge"] |= judge
    assert gather_results(*finished_run(spec_values)).setting.question == question


def test_training_and_data_are_summed_up(spec_values):
    run, spec = finished_run(spec_values)
    results = gather_results(run, spec)
    assert results.training == {
        "steps": 4,
        "skipped": 0,
        "first_loss": 4.0,
        "last_loss": 1.0,
        "tokens": 4000,
        "supervised_tokens": 400,
        "step_seconds": 8.0,
        "attempts": 2,
    }
    assert results.data["train"] == {"rows": 90, "tokens": 2000, "supervised_tokens": 500}
    assert results.data["validation"]["rows"] == 10
    counts = {"read": 1234, "dropped": 5, "quarantined": 2}
    assert results.data["counts"] == {f"conversations_{fate}": number for fate, number in counts.items()}
    provenance = read_json(run.provenance)
    assert results.provenance == {k: provenance[k] for k in ("time", "host", "commit", "python", "packages")}


def test_differences_are_from_the_base_and_from_epoch_to_epoch(spec_values):
    run, spec = finished_run(spec_values)
    results = gather_results(run, spec)
    found = {(d.before, d.after): d.difference for d in results.differences}
    expected = {}
    for before, after in (("base", "epoch-1"), ("base", "epoch-2"), ("epoch-1", "epoch-2")):
        pairs = zip(PREFERENCES[before], PREFERENCES[after], strict=True)
        changes = [100 * (b - a) for a, b in pairs if a is not None and b is not None]
        expected[before, after] = pytest.approx(sum(changes) / len(changes))
    assert found == expected
    assert results.noise == noise_sentence(results.differences) and results.noise.count("noise") == 3


def test_pairs_that_a_reader_compares():
    epochs = ["base", "epoch-1", "epoch-2", "epoch-3"]
    from_base = [("base", name) for name in epochs[1:]]
    assert pairs_shown(epochs, ["gpt"]) == [
        *from_base,
        ("epoch-1", "epoch-2"),
        ("epoch-2", "epoch-3"),
        ("gpt", "epoch-3"),
    ]
    assert pairs_shown(["epoch-2"], []) == []


def test_other_models_are_rows_of_the_same_table(spec_values, monkeypatch, tmp_path):
    monkeypatch.setitem(PREFERENCES, "other", [2.0] * 8)
    spec_values["evaluate"]["outputs"] = {"other": str(tmp_path / "other.json")}
    run, spec = finished_run(spec_values, evaluated=(*CHECKPOINTS, "other"))
    results = gather_results(run, spec)
    last = results.models[-1]
    assert (last.name, last.is_checkpoint, last.validation_loss, last.generation) == ("other", False, None, None)
    assert last.scores.win_rate == 100
    assert ("other", "epoch-2") in {(d.before, d.after) for d in results.differences}
    report(context_of(run, "report"))
    with open(run.report / "leaderboard.csv", newline="") as file:
        assert [row[""] for row in csv.DictReader(file)] == ["tiny/base", "tiny/epoch-1", "tiny/epoch-2", "other"]


def test_a_repeated_validation_counts_last(spec_values):
    """A killed attempt may have validated an epoch that the next one validated again."""
    run, spec = finished_run(spec_values)
    append_jsonl(run.validation, {"checkpoint": "epoch-1", "epoch": 1, "step": 1, "loss": 9.0})
    assert [model.validation_loss for model in gather_results(run, spec).models] == [3.0, 9.0, 2.5]


def test_some_checkpoints_only(spec_values):
    spec_values["evaluate"]["checkpoints"] = ["epoch-2", "base"]
    run, spec = finished_run(spec_values, evaluated=("base", "epoch-2"))
    results = gather_results(run, spec)
    assert [model.scores is not None for model in results.models] == [True, False, True]
    assert [(d.before, d.after) for d in results.differences] == [("base", "epoch-2")]


def test_models_without_a_common_prompt_are_not_compared(spec_values, monkeypatch):
    monkeypatch.setitem(PREFERENCES, "epoch-1", [None] * 8)
    run, spec = finished_run(spec_values)
    assert [(d.before, d.after) for d in gather_results(run, spec).differences] == [("base", "epoch-2")]


def without_evaluation(values):
    values["evaluate"] = None
    return finished_run(values, evaluated=())


def test_without_evaluation_there_are_losses_only(spec_values):
    run, spec = without_evaluation(spec_values)
    results = gather_results(run, spec)
    assert (results.setting, results.differences, results.noise, results.leaderboards) == (None, [], "", [])
    assert [model.scores for model in results.models] == [None] * 3
    assert [model.validation_loss for model in results.models] == [3.0, 2.75, 2.5]


def test_answers_made_by_an_older_version_have_no_conditions(spec_values):
    run, spec = finished_run(spec_values)
    (run.evaluate / "base" / "generation.json").unlink()
    assert [model.generation is None for model in gather_results(run, spec).models] == [True, False, False]


@pytest.mark.parametrize("evaluated", [True, False])
def test_benchmarks_are_gathered_with_and_without_a_judge(spec_values, evaluated):
    spec_values["benchmark"] = {"tasks": ["trivia"], "checkpoints": ["epoch-2", "base"]}
    run, spec = finished_run(spec_values) if evaluated else without_evaluation(spec_values)
    with pytest.raises(InputError, match=r"benchmark/base/results\.json is missing") as caught:
        report(context_of(run, "report"))
    assert "'benchmark'" in caught.value.hint
    benchmarks(run, ("base", "epoch-2"))
    results = gather_results(run, spec)
    assert [(row.task, row.metric) for row in results.benchmarks] == [("trivia", "acc,none"), ("trivia", "f1,strict")]
    accuracy, f1 = results.benchmarks
    assert accuracy.values == {"base": 0.25, "epoch-2": 0.5}
    assert accuracy.standard_errors == {"base": 0.01, "epoch-2": 0.01}
    assert f1.standard_errors == {"base": None, "epoch-2": None}
    assert results.benchmark_settings["lm_eval"] == "0.4.13"


@pytest.mark.parametrize("evaluated", [True, False])
def test_the_stage_writes_its_files(spec_values, capsys, evaluated):
    run, spec = finished_run(spec_values) if evaluated else without_evaluation(spec_values)
    report(context_of(run, "report"))
    names = {"report.json", "report.md", "data.html"} | ({"leaderboard.csv"} if evaluated else set())
    assert {file.name for file in run.report.iterdir()} == names
    assert Results.model_validate(read_json(run.report / "report.json")) == gather_results(run, spec)
    assert str(run.report) in capsys.readouterr().out
    before = {name: (run.report / name).read_bytes() for name in names}
    report(context_of(run, "report"))
    assert {name: (run.report / name).read_bytes() for name in names} == before


def test_what_is_missing_is_asked_for(spec_values):
    run, _ = finished_run(spec_values)
    (run.evaluate / "epoch-2" / "annotations.json").rename(run.path / "away")
    with pytest.raises(InputError, match=r"epoch-2/annotations\.json is missing") as caught:
        report(context_of(run, "report"))
    assert "run the stage 'judge' first: python jobs/judge.py" in caught.value.hint
    run.metrics.unlink()
    with pytest.raises(InputError, match=r"metrics\.jsonl is missing") as caught:
        report(context_of(run, "report"))
    assert "'train'" in caught.value.hint
    assert not run.report.exists()


@pytest.mark.parametrize("name", ["data/manifest.json", "data/audit.json", "provenance.json", "evaluate/checks.json"])
def test_every_file_that_is_read_is_asked_for(spec_values, name):
    run, _ = finished_run(spec_values)
    (run.path / name).unlink()
    with pytest.raises((InputError, StageError), match=name):
        report(context_of(run, "report"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("evaluate/base/annotations.json", "[{", r"base/annotations\.json: not valid JSON: "),
        ("evaluate/base/annotations.json", "[{}]", r"base/annotations\.json: row 0 has no 'instruction'"),
        ("evaluate/base/annotations.json", json.dumps([*annotations("base"), 3]), "row 8 is a JSON int, no object"),
        ("evaluate/base/generation.json", "{}", "a result file is damaged: "),
        ("evaluate/checks.json", "{}", "a result file is damaged: 'base'"),
        ("evaluate/checks.json", "[]", "a result file is damaged: "),
        ("evaluate/checks.json", "{", "a result file is damaged: "),
    ],
)
def test_what_is_damaged_is_named(spec_values, name, text, message):
    run, _ = finished_run(spec_values)
    (run.path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        report(context_of(run, "report"))


def test_damaged_shards_are_named(spec_values):
    run, _ = finished_run(spec_values)
    (run.data / "train-00000.arrow").unlink()
    with pytest.raises(StageError, match=r"train-00000\.arrow: missing"):
        report(context_of(run, "report"))


def test_tasks_that_changed_between_checkpoints_are_named(spec_values):
    spec_values["benchmark"] = {"tasks": ["trivia"]}
    run, spec = finished_run(spec_values)
    benchmarks(run)
    assert "not_comparable" not in read_benchmarks(run, spec)[1]
    for digest, name in zip("aab", CHECKPOINTS, strict=True):
        document = read_json(run.benchmark / name / "results.json")
        write_json(run.benchmark / name / "results.json", {**document, "sources": {"trivia": digest}})
    assert read_benchmarks(run, spec)[1]["not_comparable"].startswith("trivia: their files changed")


def test_damaged_benchmarks_are_named(spec_values):
    spec_values["benchmark"] = {"tasks": ["trivia"]}
    run, _ = finished_run(spec_values)
    benchmarks(run)
    write_json(run.benchmark / "base" / "results.json", {"tasks": {"trivia": {"acc,none": 1}}})
    with pytest.raises(InputError, match=r"a result file is damaged: "):
        report(context_of(run, "report"))


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"rules": 1}'])
def test_a_damaged_audit_is_named(spec_values, text):
    run, _ = finished_run(spec_values)
    run.audit.write_text(text)
    with pytest.raises(InputError, match=r"audit\.json: damaged, or written by another version") as caught:
        report(context_of(run, "report"))
    assert str(run.manifest) in caught.value.hint
