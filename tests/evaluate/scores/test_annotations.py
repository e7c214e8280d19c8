"""Guards that any annotation file is read for what it says, and that a file of another shape is refused by row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpcsft.errors import InputError
from hpcsft.evaluate.scores.annotations import Place, read_annotations
from tests.evaluate.scores.made import HARD, alpaca_rows, drawn, old

WRONG_ORDERS = [
    {"model_first": True, "preference": "2"},
    {"model_first": "false", "preference": 2},
    {"model_first": True},
]


@pytest.fixture
def read(tmp_path):
    """Reads what is given as a file's text or rows."""

    def read(content: Any, name: str = "file.json", **options: Any):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_annotations(path, **options)

    return read


def test_a_new_file_names_model_reference_and_judge(read):
    [model] = read(alpaca_rows(1, 5, HARD, "vicuna-7b"))
    assert (model.name, model.reference, model.judge) == ("vicuna-7b", "text_davinci_003", "alpaca_eval_gpt4")
    assert [len(r) for r in (model.rows, model.rows[0].places)] == [5, 1]


def test_the_only_generator_of_an_old_file_is_the_model_or_the_reference(read):
    rows = alpaca_rows(1, 5, HARD)
    [model] = read(old(rows, "my-model"))
    assert (model.name, model.reference) == ("my-model", None)
    [model] = read(old(rows, "text_davinci_003"), "llama/annotations.json")  # whose model had no name
    assert (model.name, model.reference) == ("llama", "text_davinci_003")
    [model] = read([{k: v for k, v in row.items() if k != "generator"} for row in old(rows, "x")], "some.json")
    assert (model.name, model.reference) == ("some", None)


def test_the_reference_of_an_old_file_can_be_named(read):
    rows = alpaca_rows(1, 5, HARD)
    [model] = read(old(rows, "gpt4"), "llama/annotations.json", reference="gpt4")  # whose model had no name
    assert (model.name, model.reference) == ("llama", "gpt4")
    [model] = read(old(rows, "llama"), reference="gpt4")
    assert (model.name, model.reference) == ("llama", "gpt4")
    [model] = read(rows, reference="gpt4")  # a file that tells its reference knows better
    assert (model.name, model.reference) == ("model", "text_davinci_003")


def test_models_of_one_file_are_told_apart(read):
    rows = [
        row for pair in zip(alpaca_rows(1, 4, HARD, "a"), alpaca_rows(2, 4, HARD, "b"), strict=True) for row in pair
    ]
    assert [(model.name, len(model.rows)) for model in read(rows)] == [("a", 4), ("b", 4)]
    assert [model.name for model in read(rows, generator="b")] == ["b"]
    with pytest.raises(InputError, match=r"file\.json: no rows of 'c'") as caught:
        read(rows, generator="c")
    assert caught.value.hint == "it holds a, b"


def test_several_judges_in_one_file_are_all_named(read):
    rows = alpaca_rows(1, 2, HARD)
    rows[1]["annotator"] = "claude"
    assert read(rows)[0].judge == "alpaca_eval_gpt4, claude"


@pytest.mark.parametrize("seed", [0, 7])
def test_the_order_is_drawn_as_alpaca_eval_draws_it(read, seed):
    rows = alpaca_rows(3, 60, HARD)
    places = [row.places for row in read(rows, seed=seed)[0].rows]
    assert places == [(Place(drawn(row["instruction"], seed), row["preference"] - 1),) for row in rows]
    assert {place.model_first for (place,) in places} == {True, False}


def test_equal_answers_were_shown_to_nobody(read):
    rows = alpaca_rows(1, 2, HARD)
    rows[0].update(output_1="same", output_2="same", preference=1.5)
    equal, other = read(rows)[0].rows
    assert (equal.places, equal.utility, len(other.places)) == ((), 0.5, 1)


def test_recorded_orders_stand_instead_of_the_draw(read):
    row = alpaca_rows(1, 1, HARD)[0]
    shown = [{"model_first": first, "preference": p} for first, p in ((False, 1.0), (True, 1.75), (True, None))]
    [found] = read([{**row, "preference": 1.375, "orders": shown}])[0].rows
    assert found.places == (Place(False, 0.0), Place(True, 0.75))
    assert (found.utility, found.reply_disagrees) == (0.375, None)


@pytest.mark.parametrize(
    "wrap",
    [
        str,
        "\nOutput (x) is unlike it.\n {}".format,
        lambda text: {"text": text, "logprobs": None},
        lambda text: {"message": {"role": "assistant", "content": text}},
        lambda text: {"Output (a)": "m", "Output (b)": "M"}[text],
    ],
)
def test_replies_are_held_against_the_draw(read, wrap):
    rows = alpaca_rows(5, 40, HARD)
    rows = [{**row, "raw_completion": wrap(row["raw_completion"])} for row in rows]
    assert [row.reply_disagrees for row in read(rows)[0].rows] == [False] * 40
    other = {row["instruction"]: drawn(row["instruction"]) != drawn(row["instruction"], 9) for row in rows}
    assert [row.reply_disagrees for row in read(rows, seed=9)[0].rows] == list(other.values())
    assert 5 < sum(other.values()) < 35


@pytest.mark.parametrize(
    "raw",
    [None, "", "neither", "Output (a) and\nOutput (b)", "I say Output (a)", {}, {"message": 3}, 7, ["Output (a)"]],
)
def test_replies_that_tell_nothing_are_left_out(read, raw):
    [row] = alpaca_rows(5, 1, HARD)
    assert read([{**row, "raw_completion": raw}])[0].rows[0].reply_disagrees is None


@pytest.mark.parametrize("preference", [None, "NaN", 0.999, 2.001, -1, float("inf")])
def test_what_is_out_of_range_counts_as_none(read, preference):
    text = json.dumps([{**alpaca_rows(1, 1, HARD)[0], "preference": preference}])
    [row] = read(text.replace('"NaN"', "NaN"))[0].rows
    assert (row.utility, row.places) == (None, ())


def test_a_draw_is_one_and_a_half_or_the_zero_of_old_files(read):
    rows = [{**row, "preference": p} for row, p in zip(alpaca_rows(1, 3, HARD), (0, 0.0, 1.5), strict=True)]
    assert [row.utility for row in read(rows)[0].rows] == [0.5] * 3


def test_lengths_are_characters_and_may_be_unknown(read):
    rows = [{**row, "output_2": "日本"} for row in alpaca_rows(1, 2, HARD)]
    rows[0]["output_2"] = None
    del rows[1]["output_1"]
    first, second = read(rows)[0].rows
    assert (first.length, second.length, second.reference_length) == (None, 2, None)


def test_an_instruction_that_cannot_seed_the_draw_has_no_place(read):
    [row] = alpaca_rows(1, 1, HARD)
    assert read([{**row, "instruction": "\ud800"}])[0].rows[0].places == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"file\.json: not valid JSON: "),
        ("[" * 100_000, r"file\.json: not valid JSON: "),
        ("{}", r"file\.json: this is an object"),
        ("[]", r"file\.json: this is an empty array"),
        ([{"instruction": "q", "output_2": "", "preference": 1}, 3], r"row 1 is a JSON int, no object"),
        ([{"output_2": "x"}], r"row 0 has no 'instruction' and no 'preference'"),
        ([{"instruction": "q", "preference": 1}], r"row 0 has no 'output_2'"),
        ([{"instruction": 3, "output_2": "", "preference": 1}], r"row 0: 'instruction' is no text"),
        ([{"instruction": "", "output_2": 3, "preference": 1}], r"row 0: 'output_2' is neither text nor null"),
        ([{"instruction": "", "output_2": "", "output_1": [], "preference": 1}], r"row 0: 'output_1' is neither"),
        ([{"instruction": "", "output_2": "", "preference": 1, "orders": 3}], r"row 0: 'orders' has another shape"),
        ([{"instruction": "", "output_2": "", "preference": 1, "orders": [{}]}], r"row 0: 'orders' has another"),
        *(
            ([{"instruction": "", "output_2": "", "preference": 1, "orders": [order]}], "'orders' has another")
            for order in WRONG_ORDERS
        ),
        *(
            (
                [{"instruction": "", "output_2": "", "preference": p}],
                r"row 0: 'preference' is neither a number nor null",
            )
            for p in ("2", "text", True, [2])
        ),
    ],
)
def test_what_is_no_annotation_file_is_refused(read, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read(content)
    assert "preference" in caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: cannot be read: No such file"):
        read_annotations(tmp_path / "gone.json")
