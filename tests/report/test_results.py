"""Guards that the report tells what happened: each number from its own file, checkpoints in the order of training,
every pair of checkpoints that a reader compares, and damaged or missing files named.
"""

from __future__ import annotations

import pytest

from hpcsft.errors import InputError, StageError
from hpcsft.records import append_jsonl, read_json
from hpcsft.report.report import report
from hpcsft.report.results import Results, gather_results
from tests.prepared import context_of
from tests.report.made import CHECKPOINTS, PREFERENCES, finished_run


def test_every_number_comes_from_its_file(spec_values):
    run, spec = finished_run(spec_values)
    results = gather_results(run, spec)
    assert (results.name, results.run_dir, results.num_prompts) == ("tiny", str(run.path), 8)
    assert (results.judge, results.orders) == ("local/" + spec.evaluate.judge.model.rsplit("/", 1)[1], "both")
    assert [row.checkpoint for row in results.checkpoints] == list(CHECKPOINTS)
    assert [row.validation_loss for row in results.checkpoints] == [3.0, 2.75, 2.5]
    assert [(row.num_empty, row.num_cut) for row in results.checkpoints] == [(2, 3), (0, 0), (0, 0)]
    scores = [row.scores for row in results.checkpoints]
    assert [s.win_rate for s in scores] == pytest.approx([100 * 1.5 / 7, 100 * 7 / 8, 100 * 6.5 / 8])
    assert [(s.n_wins, s.n_draws, s.n_wins_base, s.n_unparsed) for s in scores] == [
        (1, 1, 5, 1),
        (7, 0, 1, 0),
        (6, 1, 1, 0),
    ]
    assert {s.avg_length for s in scores} == {13}


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
    found = {(d.before, d.after): d.difference for d in gather_results(run, spec).differences}
    expected = {}
    for before, after in (("base", "epoch-1"), ("base", "epoch-2"), ("epoch-1", "epoch-2")):
        pairs = zip(PREFERENCES[before], PREFERENCES[after], strict=True)
        changes = [100 * (b - a) for a, b in pairs if a is not None and b is not None]
        expected[before, after] = pytest.approx(sum(changes) / len(changes))
    assert found == expected


def test_a_repeated_validation_counts_last(spec_values):
    """A killed attempt may have validated an epoch that the next one validated again."""
    run, spec = finished_run(spec_values)
    append_jsonl(run.validation, {"checkpoint": "epoch-1", "epoch": 1, "step": 1, "loss": 9.0})
    assert [row.validation_loss for row in gather_results(run, spec).checkpoints] == [3.0, 9.0, 2.5]


def test_some_checkpoints_only(spec_values):
    spec_values["evaluate"]["checkpoints"] = ["epoch-2", "base"]
    run, spec = finished_run(spec_values, evaluated=("base", "epoch-2"))
    results = gather_results(run, spec)
    assert [row.scores is not None for row in results.checkpoints] == [True, False, True]
    assert [(d.before, d.after) for d in results.differences] == [("base", "epoch-2")]


def test_checkpoints_without_a_common_prompt_are_not_compared(spec_values, monkeypatch):
    monkeypatch.setitem(PREFERENCES, "epoch-1", [None] * 8)
    run, spec = finished_run(spec_values)
    assert [(d.before, d.after) for d in gather_results(run, spec).differences] == [("base", "epoch-2")]


def without_evaluation(values):
    values["evaluate"] = None
    return finished_run(values, evaluated=())


def test_without_evaluation_there_are_losses_only(spec_values):
    run, spec = without_evaluation(spec_values)
    results = gather_results(run, spec)
    assert (results.judge, results.orders, results.num_prompts, results.differences) == (None, None, 0, [])
    assert [row.scores for row in results.checkpoints] == [None] * 3
    assert [row.validation_loss for row in results.checkpoints] == [3.0, 2.75, 2.5]


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


@pytest.mark.parametrize("name", ["data/manifest.json", "data/audit.json", "provenance.json"])
def test_every_file_that_is_read_is_asked_for(spec_values, name):
    run, _ = finished_run(spec_values)
    (run.path / name).unlink()
    with pytest.raises((InputError, StageError), match=name):
        report(context_of(run, "report"))


def test_what_is_damaged_is_named(spec_values):
    run, _ = finished_run(spec_values)
    (run.evaluate / "base" / "annotations.json").write_text("[{")
    with pytest.raises(InputError, match=r"a result file is damaged: "):
        report(context_of(run, "report"))
    (run.data / "train-00000.arrow").unlink()
    (run.evaluate / "base" / "annotations.json").write_text("[]")
    with pytest.raises(StageError, match=r"train-00000\.arrow: missing"):
        report(context_of(run, "report"))


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"rules": 1}'])
def test_a_damaged_audit_is_named(spec_values, text):
    run, _ = finished_run(spec_values)
    run.audit.write_text(text)
    with pytest.raises(InputError, match=r"audit\.json: damaged, or written by another version") as caught:
        report(context_of(run, "report"))
    assert str(run.manifest) in caught.value.hint
