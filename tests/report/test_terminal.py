"""Guards the table on a terminal: whole at 80 columns, one table where there is room, and no markup from names."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hpcsft.records import read_json
from hpcsft.report.document import Results
from hpcsft.report.report import report
from hpcsft.report.terminal import print_results
from tests.prepared import context_of
from tests.report.made import CHECKPOINTS, benchmarks, finished_run


def printed(results: Results, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_results(results, console)
    return console.file.getvalue().splitlines()


@pytest.fixture
def results(spec_values) -> Results:
    spec_values["benchmark"] = {"tasks": ["trivia"]}
    run, _ = finished_run(spec_values)
    benchmarks(run)
    report(context_of(run, "report"))
    return Results.model_validate(read_json(run.report / "report.json"))  # as a command has it


@pytest.mark.parametrize("width", [80, 77])
def test_eighty_columns_are_enough(results, width):
    lines = printed(results, width)
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert "…" not in text
    assert next(line for line in lines if line.startswith("checkpoint ")).split()[-2:] == ["length-only", "length"]
    cells = [line.split() for line in lines]
    for name, model in zip(CHECKPOINTS, results.models, strict=True):
        rows = [row for row in cells if row[:1] == [name] and row[1] != "to"]
        assert (
            len(rows) == 3 and f"{model.scores.win_rate:.2f}" in rows[0] and f"{model.validation_loss:.4f}" in rows[0]
        )
    assert sum(line.startswith("checkpoint ") for line in lines) == 3
    assert "trivia acc" in text and results.noise.replace(" ", "") in text.replace(" ", "").replace("\n", "")
    assert "Alpaca 7B" not in text


def test_narrow_terminals_get_every_column(results):
    titles = set()
    for line in printed(results, 48):
        assert len(line) <= 48
        titles |= set(line.split()) if line.startswith("checkpoint ") else set()
    assert {
        "loss",
        "rate",
        "interval",
        "win/draw/loss",
        "length-only",
        "length",
        "1st",
        "winner",
        "verdict",
        "cut",
    } <= titles


def test_a_wide_terminal_has_one_table(results):
    lines = printed(results, 220)
    [header] = [line for line in lines if line.startswith("checkpoint ")]
    assert all(title in header for title in ("val. loss", "95% interval", "same winner", "cut"))
    assert len({len(line.rstrip()) for line in lines if line.startswith(CHECKPOINTS) and " to " not in line}) == 1


def test_long_names_are_numbered_in_the_table_of_differences(results):
    longer = {"before": "a-model-with-quite-a-long-name", "after": "and-another-one-of-that-kind"}
    odd = results.model_copy(update={"differences": [results.differences[0].model_copy(update=longer)]})
    lines = printed(odd, 80)
    place = lines.index(f"1 = {longer['before']}")
    assert lines[place + 1] == f"2 = {longer['after']}"
    header = next(line for line in lines if line.startswith("difference "))
    row = next(line for line in lines if line.startswith("1 to 2 "))
    assert header.split()[-1] == "detectable" and len(header.rstrip()) == len(row.rstrip()) <= 80
    assert not any(line.startswith("1 = ") for line in printed(results, 80))


def test_a_report_of_an_older_version_is_shown(results):
    document = results.model_dump()
    del document["setting"]["question"]
    for model in document["models"]:
        del model["scores"]["position_bias"]["order_source"]
    assert printed(Results.model_validate(document), 80) == printed(results, 80)


def test_names_are_no_markup(results):
    odd = results.model_copy(update={"models": [results.models[0].model_copy(update={"name": "[red]x[/red]"})]})
    assert any(line.startswith("[red]x[/red]") for line in printed(odd, 120))


def test_without_evaluation_losses_are_shown(spec_values):
    spec_values["evaluate"] = None
    run, _ = finished_run(spec_values, evaluated=())
    report(context_of(run, "report"))
    lines = printed(Results.model_validate(read_json(run.report / "report.json")), 80)
    assert lines[0].split() == ["checkpoint", "validation", "loss"]
    assert "Win rate" not in "\n".join(lines)
