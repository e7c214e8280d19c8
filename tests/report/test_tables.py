"""Guards the tables that people read and programs parse: well-formed Markdown, AlpacaEval's CSV columns, no difference
called real that is noise, and a report also without evaluation.
"""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest

from hpcsft.evaluate.scores import Difference
from hpcsft.records import read_jsonl, write_text
from hpcsft.report.results import Results, gather_results
from hpcsft.report.tables import leaderboard_csv, markdown_table, noise_sentence, report_markdown
from tests.report.made import PREFERENCES, finished_run


def results_of(values: dict[str, Any], **changes: Any) -> Results:
    return gather_results(*finished_run(values)).model_copy(update=changes)


def table_in(markdown: str) -> list[list[str]]:
    """The cells of the one table in `markdown`, header first; its columns must stand under each other."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert len({tuple(place for place, sign in enumerate(line) if sign == "|") for line in lines}) == 1
    rule = lines.pop(1)
    assert re.fullmatch(r"\| -+ (\| -+: )*\|", rule)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_table_is_aligned_markdown():
    text = markdown_table(["name", "n"], [["a", "1.00"], ["longer name", "-"]])
    assert text.splitlines() == [
        "| name        |    n |",
        "| ----------- | ---: |",
        "| a           | 1.00 |",
        "| longer name |    - |",
    ]


def test_the_report_says_what_was_found(spec_values):
    markdown = report_markdown(results_of(spec_values))
    assert markdown.startswith("# tiny\n\nWin rate against the reference on 8 prompts, in percent; judge local/tiny, ")
    assert "each pair judged in both orders." in markdown and markdown.endswith(".\n")
    header, *rows = table_in(markdown)
    assert len(rows) == 3 and all(len(row) == len(header) == 7 for row in rows)
    assert [row[0] for row in rows] == ["base", "epoch-1", "epoch-2"]
    assert [row[1] for row in rows] == ["3.0000", "2.7500", "2.5000"]
    assert [row[2].split(" ± ")[0] for row in rows] == ["21.43", "87.50", "81.25"]
    assert [row[3] for row in rows] == ["1/1/5", "7/0/1", "6/1/1"]
    assert [row[4] for row in rows] == ["13", "13", "13"]
    assert rows[0][5] == "25.0/16.7"
    assert [row[6] for row in rows] == ["3/2/1", "0/0/0", "0/0/0"]
    assert (
        "Training: 4 steps, 4,000 tokens (400 supervised) in 8 s of steps, loss 4.0000 to 1.0000, 2 attempts."
        in markdown
    )
    assert (
        "Data: 1,234 conversations read, 5 dropped, 2 quarantined; 90 training rows of 2,000 tokens (25% supervised), "
        "10 validation rows; more in [data.html](data.html)." in markdown
    )
    assert re.search(r"^Made on \S+ at \S+: (commit \w{10}, )?Python 3\.\d+\.\d+, torch \S+", markdown, re.MULTILINE)


def test_steps_that_were_passed_over_are_told(spec_values):
    run, spec = finished_run(spec_values)
    rows = list(read_jsonl(run.metrics))
    lost = {"loss": None, "grad_norm": None, "skipped": True}
    write_text(
        run.metrics, "".join(json.dumps({**row, **lost} if row["step"] in (1, 3) else row) + "\n" for row in rows)
    )
    markdown = report_markdown(gather_results(run, spec))
    assert "Training: 4 steps (2 passed over, not finite), 4,000 tokens" in markdown
    assert "loss 2.0000 to 1.0000" in markdown
    write_text(run.metrics, "".join(json.dumps({**row, **lost}) + "\n" for row in rows))
    assert "no finite loss" in report_markdown(gather_results(run, spec))


def test_without_evaluation_the_report_shows_the_losses(spec_values):
    spec_values["evaluate"] = None
    markdown = report_markdown(gather_results(*finished_run(spec_values, evaluated=())))
    assert table_in(markdown) == [
        ["checkpoint", "validation loss"],
        ["base", "3.0000"],
        ["epoch-1", "2.7500"],
        ["epoch-2", "2.5000"],
    ]
    assert "Win rate" not in markdown and "Differences" not in markdown and "Training: 4 steps" in markdown


def test_numbers_that_are_not_there_are_dashes(spec_values, monkeypatch):
    monkeypatch.setitem(PREFERENCES, "base", [None] * 8)
    run, spec = finished_run(spec_values)
    run.validation.unlink()
    row = table_in(report_markdown(gather_results(run, spec)))[1]
    assert row == ["base", "-", "- ± -", "0/0/0", "13", "-/-", "3/2/8"]


def test_a_checkpoint_that_was_not_judged_has_no_row(spec_values):
    spec_values["evaluate"]["checkpoints"] = ["epoch-1"]
    results = gather_results(*finished_run(spec_values, evaluated=("epoch-1",)))
    markdown = report_markdown(results)
    assert [row[0] for row in table_in(markdown)[1:]] == ["epoch-1"]
    assert "Differences" not in markdown
    assert len(list(csv.reader(io.StringIO(leaderboard_csv(results))))) == 2


def test_the_leaderboard_is_alpaca_evals(spec_values):
    results = results_of(spec_values)
    rows = list(csv.DictReader(io.StringIO(leaderboard_csv(results))))
    assert list(rows[0]) == [
        "",
        "win_rate",
        "standard_error",
        "n_wins",
        "n_wins_base",
        "n_draws",
        "n_total",
        "discrete_win_rate",
        "mode",
        "avg_length",
        "validation_loss",
    ]
    assert [row[""] for row in rows] == ["tiny/base", "tiny/epoch-1", "tiny/epoch-2"]
    for row, result in zip(rows, results.checkpoints, strict=True):
        for column in ("win_rate", "standard_error", "discrete_win_rate"):
            assert float(row[column]) == getattr(result.scores, column)  # every digit: no rounding in the file
        for column in ("n_wins", "n_wins_base", "n_draws", "n_total", "avg_length"):
            assert int(row[column]) == getattr(result.scores, column)
        assert (float(row["validation_loss"]), row["mode"]) == (result.validation_loss, "community")


def difference(after: str, points: float, z: float | None) -> Difference:
    significant = z is not None and abs(z) > 1.96
    return Difference(before="base", after=after, difference=points, standard_error=1.0, z=z, significant=significant)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        (
            [difference("epoch-1", 12.345, 5.0)],
            "Differences beyond noise (paired, 5%): base to epoch-1 +12.35 points, z = 5.00.",
        ),
        (
            [difference("epoch-1", -0.5, -0.24)],
            "Differences within noise: base to epoch-1 -0.50 points, z = -0.24.",
        ),
        (
            [difference("epoch-1", 12.0, 5.0), difference("epoch-2", 0.0, None), difference("epoch-3", 9.0, 3.0)],
            "Differences beyond noise (paired, 5%): base to epoch-1 +12.00 points, z = 5.00; "
            "base to epoch-3 +9.00 points, z = 3.00; within noise: base to epoch-2 +0.00 points.",
        ),
    ],
)
def test_noise_is_called_noise(differences, expected):
    assert noise_sentence(differences) == expected
