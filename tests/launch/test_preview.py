"""`preview`: a light command, whose exit codes and document scripts can trust. Through the real script."""

from __future__ import annotations

import json

import pytest

from tests.launch.command import launch, loaded_by_look


@pytest.fixture
def spec_file(spec_values, tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec_values))
    return path


def test_people_see_rows_and_what_is_learnt(spec_file, tmp_path):
    done = launch("preview.py", spec_file, "--rows", 2, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "120 conversations = " in done.stdout
    assert done.stdout.count("</s>⟧■") == 2
    assert {path.name for path in tmp_path.iterdir()} == {"spec.json"}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_terminal_that_knows_only_ascii_is_no_problem(options, spec_file, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = launch("preview.py", spec_file, *options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


def test_scripts_get_one_document(spec_file, tmp_path):
    done = launch(
        "preview.py", spec_file, "--json", "--rows", 1, "--first", 7, "--set", "data.mask=last_turn", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["mask"] == "last_turn"
    (source,) = document["sources"]
    assert (source["fate"]["read"], len(source["samples"])) == (7, 1)


def test_it_is_light(spec_file, tmp_path):
    """Without torch it starts in a third of the time."""
    assert loaded_by_look("preview.py", spec_file, tmp_path) == "0 []"


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("model.path=/no/model", "error: /no/model: no such folder"),
        ('data.train=["/no/data.jsonl"]', "error: data.train: no such file: /no/data.jsonl"),
        ("data.masks=1", "error: data.masks: unknown field"),
        ("data.template=tokenizer", "error: data.template: "),
    ],
)
def test_what_is_wrong_is_told_in_one_line(override, error, spec_file, tmp_path):
    done = launch("preview.py", spec_file, "--set", override, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(error) and "Traceback" not in done.stderr


def test_data_of_which_no_row_is_left_is_shown_and_refused(spec_file, tmp_path):
    done = launch("preview.py", spec_file, "--set", "data.filter.min_turns=99", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "")
    assert "not a single training row is left" in done.stdout


def test_data_of_which_too_much_is_bad_is_shown_and_refused(spec_file, spec_values, tmp_path):
    """As preprocessing will refuse it, after a night in the queue."""
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"data": ["q", "a"]}) + "\n{}\n")
    spec = [spec_file, "--set", f"data.train={json.dumps([str(bad)])}", "--set", "data.validation=0"]
    done = launch("preview.py", *spec, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "")
    assert "preprocessing would stop" in done.stdout
    assert launch("preview.py", *spec, "--set", "data.max_bad_share=0.5", cwd=tmp_path).returncode == 0
    help_text = " ".join(launch("preview.py", "--help", cwd=tmp_path).stdout.split())
    assert "Exit code 2" in help_text and "more bad rows than data.max_bad_share allows" in help_text


def test_a_spec_whose_batches_do_not_fit_is_shown_too(spec_file, tmp_path):
    done = launch("preview.py", spec_file, "--set", "train.global_batch_size=1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--rows", "0"), ("--first", "-1"), ("--first", "many"), ("--first", "1" + "0" * 20), ("--rows", "1000001")],
)
def test_counts_are_from_one_to_a_million(option, value, spec_file, tmp_path):
    done = launch("preview.py", spec_file, option, value, cwd=tmp_path)
    assert done.returncode == 2
    assert (
        f"expected a whole number from 1 to 1,000,000, given '{value}'" in done.stderr
        or "expected one argument" in done.stderr
    )
