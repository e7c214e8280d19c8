"""Guards leaderboard.csv: AlpacaEval's columns with every digit, and its files and ours read back."""

from __future__ import annotations

import csv
import io

import pytest

from hpcsft.errors import InputError
from hpcsft.report.leaderboard import leaderboard_csv, read_leaderboard
from hpcsft.report.results import gather_results
from tests.report.made import finished_run

# The columns of alpaca_eval 0.6.6, leaderboards/data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv
ALPACA_EVAL = (
    "win_rate,standard_error,n_wins,n_wins_base,n_draws,n_total,discrete_win_rate,mode,avg_length,"
    "length_controlled_winrate,lc_standard_error"
)


def test_the_leaderboard_is_alpaca_evals(spec_values):
    results = gather_results(*finished_run(spec_values))
    text = leaderboard_csv(results)
    assert text.startswith(f",{ALPACA_EVAL},interval_low,")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row[""] for row in rows] == ["tiny/base", "tiny/epoch-1", "tiny/epoch-2"]
    for row, model in zip(rows, results.models, strict=True):
        scores, bias = model.scores, model.scores.position_bias
        for column in ("win_rate", "standard_error", "discrete_win_rate"):
            assert float(row[column]) == getattr(scores, column)  # every digit: no rounding in the file
        for column in ("n_wins", "n_wins_base", "n_draws", "n_total", "avg_length", "n_unparsed"):
            assert int(row[column]) == getattr(scores, column)
        assert (float(row["interval_low"]), float(row["interval_high"])) == scores.interval
        shares = ("shown_first", bias.first), ("shown_second", bias.second), ("chosen_first", bias.chosen_first)
        assert all(float(row[column]) == share for column, share in shares)
        assert (float(row["validation_loss"]), row["mode"]) == (model.validation_loss, "community")
        assert (row["length_controlled_winrate"], row["lc_standard_error"]) == ("", "")


def test_length_control_has_its_own_columns(spec_values):
    results = gather_results(*finished_run(spec_values))
    rates = {
        "lc_win_rate": 1.5,
        "lc_standard_error": 2.5,
        "length_only_win_rate": 3.5,
        "length_only_standard_error": 4.5,
    }
    models = [m.model_copy(update={"scores": m.scores.model_copy(update=rates)}) for m in results.models[:1]]
    [row] = csv.DictReader(io.StringIO(leaderboard_csv(results.model_copy(update={"models": models}))))
    assert row["length_controlled_winrate"] == "1.5"
    assert {name: float(row[name]) for name in list(rates)[1:]} == dict(list(rates.items())[1:])


def test_a_checkpoint_that_was_not_judged_has_no_row(spec_values):
    spec_values["evaluate"]["checkpoints"] = ["epoch-1"]
    results = gather_results(*finished_run(spec_values, evaluated=("epoch-1",)))
    assert len(leaderboard_csv(results).splitlines()) == 2


def test_what_is_written_can_be_read(spec_values, tmp_path):
    results = gather_results(*finished_run(spec_values))
    path = tmp_path / "leaderboard.csv"
    path.write_text(leaderboard_csv(results))
    rows = read_leaderboard(path)
    assert [(row.name, row.win_rate, row.n_total, row.avg_length) for row in rows] == [
        (f"tiny/{model.name}", model.scores.win_rate, model.scores.n_total, 13) for model in results.models
    ]
    spec_values["evaluate"]["leaderboards"] = [str(path)]
    spec_values["seed"] = 7
    assert gather_results(*finished_run(spec_values)).leaderboards == rows


def test_rows_of_old_leaderboards_may_lack_figures(tmp_path):
    path = tmp_path / "old.csv"
    path.write_text(",win_rate,avg_length,standard_error\nCurrent model,21.5,3308,\nother,7,,0.5\n")
    first, second = read_leaderboard(path)
    assert (first.name, first.win_rate, first.avg_length, first.standard_error) == ("Current model", 21.5, 3308, None)
    assert (second.avg_length, second.standard_error, second.n_total) == (None, 0.5, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column win_rate"),
        (b",rate\na,1\n", "no column win_rate"),
        (b",win_rate\na,1\nb,high\n", "row 1 is no row of a leaderboard"),
        (b",win_rate\na,\n", "row 0 is no row of a leaderboard"),
        (b",win_rate\na,nan\n", "row 0 is no row of a leaderboard"),
        (b"\xff\xfe", "this is no text in UTF-8"),
    ],
)
def test_other_files_are_no_leaderboards(tmp_path, content, message):
    (tmp_path / "l.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"evaluate\.leaderboards: .*l\.csv: {message}"):
        read_leaderboard(tmp_path / "l.csv")


def test_a_leaderboard_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv: cannot be read: No such file"):
        read_leaderboard(tmp_path / "gone.csv")
