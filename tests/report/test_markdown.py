"""Guards report.md: well-formed tables with every figure of the run, what may not be compared said beside it, and no
text of others that becomes markup.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from hpcsft.evaluate.scores.grids import Grid
from hpcsft.records import read_jsonl, write_json, write_text
from hpcsft.report.document import Results
from hpcsft.report.markdown import markdown_table, report_markdown
from hpcsft.report.results import gather_results
from tests.report.made import CHECKPOINTS, PREFERENCES, benchmarks, conditions, finished_run


def results_of(values: dict[str, Any]) -> Results:
    return gather_results(*finished_run(values))


def tables_in(markdown: str) -> list[list[list[str]]]:
    """The cells of every table, header first; columns must stand under each other."""
    found = []
    for block in markdown.split("\n\n"):
        if block.startswith("|"):
            lines = block.splitlines()
            assert len({tuple(m.start() for m in re.finditer(r"(?<!\\)\|", line)) for line in lines}) == 1
            assert re.fullmatch(r"\| -+ (\| -+: )*\|", lines.pop(1))
            found.append([[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines])
    return found


def test_a_table_is_aligned_markdown():
    text = markdown_table(Grid(["name", "n"], [["a", "1.00"], ["longer name", "-"], ["", ""]]))
    assert text.splitlines() == [
        "| name        |    n |",
        "| ----------- | ---: |",
        "| a           | 1.00 |",
        "| longer name |    - |",
        "|             |      |",
    ]


def test_names_of_others_do_not_become_markup():
    text = markdown_table(Grid(["name"], [["a|b\n*c* <img> `d` [e](f)"]]))
    assert text.splitlines()[2] == r"| a\|b \*c\* \<img> \`d\` [e]\(f) |"


def test_the_report_says_what_was_found(spec_values):
    results = results_of(spec_values)
    markdown = report_markdown(results)
    assert markdown.startswith("# tiny\n\nWin rate against teacher on 8 prompts, in percent; judge local/tiny, ")
    assert "each pair judged in both orders." in markdown and markdown.endswith("|\n")
    main, differences, hidden, datasets, *others = tables_in(markdown)
    assert main[0][:4] == ["checkpoint", "val. loss", "win rate", "95% interval"]
    assert [row[0] for row in main[1:]] == list(CHECKPOINTS)
    assert [row[1] for row in main[1:]] == ["3.0000", "2.7500", "2.5000"]
    assert [row[2] for row in main[1:]] == ["21.43", "87.50", "81.25"]
    intervals = [model.scores.interval for model in results.models]
    assert [row[3] for row in main[1:]] == [f"[{low:.1f}, {high:.1f}]" for low, high in intervals]
    assert [row[4] for row in main[1:]] == ["1/1/5", "7/0/1", "6/1/1"]
    assert [row[6] for row in main[1:]] == ["13", "13", "13"]
    assert differences[0] == ["difference", "points", "95% interval", "p", "p (Holm)", "detectable"]
    assert [(row[0], row[1], row[4]) for row in differences[1:]] == [
        (f"{d.before} to {d.after}", f"{d.difference:+.2f}", f"{d.p_holm:.4f}") for d in results.differences
    ]
    named = dict(zip(hidden[0], hidden[1], strict=True))
    assert (named["shown 1st"], named["shown 2nd"], named["same winner"]) == ("25.0", "12.5", "100.0")
    checks = ("no verdict", "echo", "empty", "leftover", "loop", "cut")
    assert [named[kind] for kind in checks] == ["1", "0", "2", "0", "0", "3"]
    assert [row[0] for row in datasets[1:]] == [f"{name} {part}" for name in CHECKPOINTS for part in "ab"]
    assert [table[0] for table in others] == [["model", "win rate", "length"]] * 2
    assert f"\n\n{results.noise}\n\n" in markdown
    assert "Answers: greedy, up to 16 tokens, template user_assistant, sorted batches in float32 on cpu, " in markdown
    assert "would be others" not in markdown
    assert (
        "Training: 4 steps, 4,000 tokens (400 supervised) in 8 s of steps, loss 4.0000 to 1.0000, 2 attempts."
        in markdown
    )
    assert (
        "Data: 1,234 conversations read, 5 dropped, 2 quarantined; 90 training rows of 2,000 tokens (25% supervised), "
        "10 validation rows; more in [data.html](data.html)." in markdown
    )
    assert re.search(r"^Made on \S+ at \S+: (commit \w{10}, )?Python 3\.\d+\.\d+, torch \S+", markdown, re.MULTILINE)


def test_rows_of_others_say_why_they_may_not_be_compared(spec_values):
    markdown = report_markdown(results_of(spec_values))
    assert "| Alpaca 7B            |    26.46 |    396 |" in markdown
    assert markdown.count("Not comparable with this run: judge here local/tiny, there ") == 2


def test_leaderboards_stand_beside(spec_values, tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text(",win_rate,standard_error,n_total,avg_length\nalpaca-7b,26.4596,1.5357,805,396\n")
    spec_values["evaluate"]["leaderboards"] = [str(path)]
    markdown = report_markdown(results_of(spec_values))
    assert f"From {path}, where judge, reference and prompts may be others:" in markdown
    assert ["alpaca-7b", "26.46", "1.54", "805", "396"] in [row for table in tables_in(markdown) for row in table]


def test_bfloat16_answers_come_with_their_caveat(spec_values):
    run, spec = finished_run(spec_values)
    write_json(run.evaluate / "epoch-2" / "generation.json", conditions("bfloat16"))
    markdown = report_markdown(gather_results(run, spec))
    assert "\n\nAnswers of base, epoch-1: greedy, up to 16 tokens" in markdown
    caveat = "In bfloat16 some answers would be others in batches of another shape."
    assert re.search(rf"\n\nAnswers of epoch-2: greedy, .* in bfloat16 on cpu, .*\. {caveat}\n\n", markdown)


def test_sampled_answers_tell_temperature_and_seed(spec_values):
    run, spec = finished_run(spec_values)
    made = conditions().model_copy(update={"settings": {"temperature": 0.7}, "template": None, "device_name": "A100"})
    for name in CHECKPOINTS:
        write_json(run.evaluate / name / "generation.json", made)
    expected = "Answers: sampled at temperature 0.7, seed 42, bare instructions, sorted batches in float32 on A100, "
    assert expected in report_markdown(gather_results(run, spec))


def test_benchmarks_have_a_table(spec_values):
    spec_values["benchmark"] = {"tasks": ["trivia"]}
    run, spec = finished_run(spec_values)
    benchmarks(run)
    markdown = report_markdown(gather_results(run, spec))
    [table] = [table for table in tables_in(markdown) if table[0][0] == "benchmark"]
    assert table == [
        ["benchmark", *CHECKPOINTS],
        ["trivia acc", "0.2500 ± 0.0100", "0.5000 ± 0.0100", "0.7500 ± 0.0100"],
        ["trivia f1,strict", "0.5000", "0.5000", "0.5000"],
    ]
    assert "lm-evaluation-harness: num_fewshot 3, apply_chat_template False, lm_eval 0.4.13." in markdown


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
    assert tables_in(markdown) == [
        [
            ["checkpoint", "validation loss"],
            ["base", "3.0000"],
            ["epoch-1", "2.7500"],
            ["epoch-2", "2.5000"],
        ]
    ]
    for word in ("Win rate", "noise", "Rows of others", "Answers", "lm-evaluation-harness"):
        assert word not in markdown
    assert "Training: 4 steps" in markdown


def test_numbers_that_are_not_there_are_dashes(spec_values, monkeypatch):
    monkeypatch.setitem(PREFERENCES, "base", [None] * 8)
    run, spec = finished_run(spec_values)
    run.validation.unlink()
    main, _, hidden, *_ = tables_in(report_markdown(gather_results(run, spec)))
    assert main[1] == ["base", "-", "-", "-", "0/0/0", "-", "13"]
    assert hidden[1] == ["base", "-", "-", "-", "-", "8", "0", "2", "0", "0", "3"]


@pytest.mark.parametrize("name", ["epoch-1"])
def test_one_checkpoint_has_nothing_to_be_compared_with(spec_values, name):
    spec_values["evaluate"]["checkpoints"] = [name]
    results = gather_results(*finished_run(spec_values, evaluated=(name,)))
    markdown = report_markdown(results)
    assert [row[0] for row in tables_in(markdown)[0][1:]] == [name]
    assert "Differences" not in markdown
    assert "As a rule of thumb, 8 prompts find a difference of 49.5 points in 80% of cases." in markdown
