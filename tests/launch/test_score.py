"""`score`: annotation files in, AlpacaEval's figures out, in one light command. Through the real script."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest

from hpcsft.console import main
from tests.evaluate.scores.made import ALL_SORTS, HARD, alpaca_rows, drawn, kept, old
from tests.launch.command import launch, loaded_by_look


@pytest.fixture
def write(tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text(json.dumps(rows))
        return tmp_path / name

    return write


def scored(*arguments, cwd):
    done = launch("score.py", *arguments, "--json", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize("style", ["new", "old"])
def test_one_model_is_one_object(write, tmp_path, style):
    rows = alpaca_rows(1, 180, ALL_SORTS)
    document = scored(write("a.json", old(rows, "model") if style == "old" else rows), cwd=tmp_path)
    u = np.array(kept(rows))
    first = [kept([row])[0] for row in rows if kept([row]) and drawn(row["instruction"])]
    second = [kept([row])[0] for row in rows if kept([row]) and not drawn(row["instruction"])]
    expected = {
        "win_rate": 100 * u.mean(),
        "standard_error": 100 * u.std(ddof=1) / math.sqrt(len(u)),
        "n_wins": (u > 0.5).sum(),
        "n_wins_base": (u < 0.5).sum(),
        "n_draws": (u == 0.5).sum(),
        "n_total": len(u),
        "avg_length": int(np.mean([len(row["output_2"]) for row in rows])),
        "discrete_win_rate": 100 * ((u > 0.5) + (u == 0.5) / 2).mean(),
    }
    assert {key: document[key] for key in expected} == pytest.approx(expected, abs=1e-9)
    assert document["name"] == "model"
    bias = {"first": 100 * np.mean(first), "second": 100 * np.mean(second)}
    bias["chosen_first"] = 100 * np.mean(first + [1 - u for u in second])
    assert {key: document["position_bias"][key] for key in bias} == pytest.approx(bias, abs=1e-9)


def test_several_models_are_compared(write, tmp_path):
    files = [write(f"{name}.json", alpaca_rows(1, 60, HARD, name)) for name in ("a", "b")]
    files += [write("again.json", alpaca_rows(2, 60, HARD, "a"))]
    document = scored(*files, cwd=tmp_path)
    names = ["a", "b", f"a ({files[2]})"]
    assert [model["name"] for model in document["models"]] == names
    assert [(d["before"], d["after"]) for d in document["differences"]] == [("a", "b")]  # no prompt in common with a
    assert document["differences"][0]["difference"] == 0
    both = write("both.json", alpaca_rows(1, 9, HARD, "a") + alpaca_rows(1, 9, HARD, "b"))
    assert len(scored(both, cwd=tmp_path)["models"]) == 2
    assert scored(both, "--generator", "b", cwd=tmp_path)["name"] == "b"


def test_models_of_another_judge_or_reference_are_not_compared(write, tmp_path):
    def file(name, **changes):
        return write(f"{name}.json", [{**row, **changes} for row in alpaca_rows(1, 40, HARD, name)])

    files = [file("a"), file("b", generator_1="gpt4_turbo"), file("c"), file("d", annotator="claude")]
    document = scored(*files, cwd=tmp_path)
    assert [(d["before"], d["after"]) for d in document["differences"]] == [("a", "c")]
    assert [group["models"] for group in document["not_compared"]] == [["a", "c"], ["b"], ["d"]]
    assert document["not_compared"][1]["reference"] == "gpt4_turbo"
    told = " ".join(launch("score.py", *files, cwd=tmp_path).stdout.split())
    assert (
        "Not compared with each other, for their judge or reference differs: a, c (judge alpaca_eval_gpt4, reference "
        "text_davinci_003); b (judge alpaca_eval_gpt4, reference gpt4_turbo); d (judge claude, reference "
        "text_davinci_003)." in told
    )
    assert scored(files[0], files[2], cwd=tmp_path)["not_compared"] == []


def test_the_reference_of_old_files_is_named(write, tmp_path):
    file = write("mine.json", old(alpaca_rows(1, 40, HARD), "gpt4"))
    told = scored(file, "--reference", "gpt4", cwd=tmp_path)
    assert (told["name"], told["reference"]) == ("mine", "gpt4")
    said = [launch("score.py", file, *options, cwd=tmp_path).stdout for options in ((), ("--reference", "gpt4"))]
    assert ["--reference NAME" in text for text in said] == [True, False]


def test_an_order_that_is_not_in_the_file_is_told(write, tmp_path):
    rows = alpaca_rows(1, 20, HARD)
    recorded = [{**row, "orders": [{"model_first": True, "preference": row["preference"]}]} for row in rows]
    for file, source in ((write("drawn.json", rows), "drawn"), (write("recorded.json", recorded), "recorded")):
        assert scored(file, cwd=tmp_path)["position_bias"]["order_source"] == source
        text = launch("score.py", file, cwd=tmp_path).stdout
        assert ("The order of the answers is not in the file" in text) == (source == "drawn")


def test_the_seed_of_the_draw_is_chosen(write, tmp_path):
    file = write("a.json", alpaca_rows(1, 80, HARD))
    told = [scored(file, "--seed", seed, cwd=tmp_path)["position_bias"] for seed in (0, 3)]
    assert told[0]["n_replies_disagree"] == 0 and told[1]["n_replies_disagree"] > 10
    done = launch("score.py", file, "--seed", 3, cwd=tmp_path)
    assert "do not trust" in done.stdout


def test_people_get_tables_that_fit(write, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    files = [write(f"{name}.json", alpaca_rows(n, 60, ALL_SORTS, f"run/{name}")) for n, name in enumerate(("a", "b"))]
    files += [write("c.json", alpaca_rows(1, 60, HARD, "run/c"))]
    done = launch("score.py", *files, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(len(line) <= 80 for line in done.stdout.splitlines()) and "…" not in done.stdout
    for text in ("win rate", "shown 1st", "data set", "difference", "judge alpaca_eval_gpt4", "b to c"):
        assert text in done.stdout
    alone = launch("score.py", files[0], cwd=tmp_path).stdout
    assert "As a rule of thumb" in alone and "run/a" in alone


def test_differences_of_models_with_long_names_stay_one_table(write, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"a-very-long-name-of-a-model-of-somebody-{number}" for number in range(4)]
    files = [write(f"{n}.json", alpaca_rows(1, 30, HARD, name)) for n, name in enumerate(names)]
    lines = launch("score.py", *files, cwd=tmp_path).stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    [place] = [number for number, line in enumerate(lines) if line.startswith("difference")]
    assert lines[place].split()[-1] == "detectable"
    assert [line[:6] for line in lines[place + 1 : place + 6]] == ["1 to 2", "1 to 3", "1 to 4", "2 to 3", "3 to 4"]
    assert lines[place - 5 : place] == [*(f"{number} = {name}" for number, name in enumerate(names, 1)), ""]


def test_length_control_is_told_undefined(write, tmp_path):
    difficulty = write("d.json", dict.fromkeys(range(805), 0.5))
    file = write("a.json", alpaca_rows(1, 40, HARD))
    document = scored(file, "--difficulty", difficulty, cwd=tmp_path)
    assert document["lc_win_rate"] is None and document["lc_undefined"].startswith("40 rows; it is defined for")
    assert "No length-controlled rate: 40 rows" in " ".join(
        launch("score.py", file, "--difficulty", difficulty, cwd=tmp_path).stdout.split()
    )


def test_a_terminal_that_knows_only_ascii_is_no_problem(write, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    file = write("a.json", alpaca_rows(1, 5, HARD, "模型"))
    for options in ([], ["--json"]):
        done = launch("score.py", file, *options, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout.isascii()


def test_mistakes_are_told_in_two_lines(write, tmp_path):
    done = launch("score.py", write("a.json", [{"instruction": "q"}]), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert error == f"error: annotations: {tmp_path}/a.json: row 0 has no 'output_2' and no 'preference'"
    assert hint.startswith("hint: expected a JSON array of")


def test_it_is_light(write, tmp_path):
    file = write("a.json", alpaca_rows(1, 5, HARD))
    assert loaded_by_look("score.py", file, tmp_path) == "0 []"


def test_it_stands_behind_the_console_script(write, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])
    assert main(["score", str(write("a.json", alpaca_rows(1, 5, HARD))), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_total"] == 5
