"""Guards that a preview shows what preprocessing would make, row by row, accounts for all that it read, and writes
nothing; and that the terminal shows what is learnt with and without colours, at any width, whatever is in the data.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hpcsft.data.preprocess import preprocess
from hpcsft.data.preview import preview
from hpcsft.data.preview_text import print_preview
from hpcsft.errors import InputError
from hpcsft.records import read_json
from hpcsft.spec import parse_spec
from tests.prepared import begun, new_run

NASTY = "[bold red]hi[/] \x1b[31mred\x1b[0m \u202e :smile: </s> x"


def looked(values: dict[str, Any], num_shown: int = 3, num_read: int = 500) -> dict[str, Any]:
    return preview(parse_spec(values), num_shown, num_read)


def write_messages(path: Path, *dialogs: tuple[str, str]) -> str:
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in dialogs
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("mask", ["all_turns", "per_turn"])
def test_it_shows_what_preprocessing_makes(spec_values, mask):
    spec_values["data"].update(mask=mask, validation=0)
    run = new_run(spec_values)
    preprocess(begun(run, "preprocess"))
    document = read_json(run.audit)
    (source,) = looked(spec_values, num_shown=10_000)["sources"]
    for name in ("rows", "tokens", "supervised_tokens", "lengths", "supervised", "packing"):
        assert source[name] == document["train"][name]
    assert source["fate"] == document["fate"]
    assert [sample["row"] for sample in source["samples"]] == list(range(1, source["rows"] + 1))
    for sample in document["samples"]:
        shown = source["samples"][sample["row"] - 1]
        assert {name: shown[name] for name in sample} == sample


def test_nothing_is_written(spec_values, tmp_path):
    before = set(tmp_path.rglob("*"))
    looked(spec_values)
    assert set(tmp_path.rglob("*")) == before


def test_every_file_is_looked_at_and_no_more_rows_are_read_than_asked(spec_values, tmp_path):
    own = write_messages(tmp_path / "b.jsonl", *[("q", "a")] * 50)
    held_out = write_messages(tmp_path / "c.jsonl", ("q", "a"))
    spec_values["data"].update(train=[*spec_values["data"]["train"], own], validation=[held_out])
    train, validation = looked(spec_values, num_shown=2, num_read=9)["sources"]
    assert (train["source"], validation["source"]) == ("train", "validation")
    assert train["formats"] == {"ultrachat": 5, "messages": 4}
    assert (train["fate"]["read"], validation["fate"]["read"]) == (9, 1)
    first, last = train["samples"]
    assert (first["file"], first["file_row"]) == (train["files"][0], 1)
    assert (last["file"], last["file_row"]) == (own, 4)


def test_every_row_that_was_read_is_told_of(spec_values, tmp_path):
    path = tmp_path / "bad.jsonl"
    write_messages(path, ("q", "a"), ("q", "word " * 500), ("q", "a"))
    path.write_text(path.read_text() + '{bad\n{"foo": 1}\n', encoding="utf-8")
    spec_values["data"].update(train=[str(path)], overlong="drop", validation=0)
    (source,) = looked(spec_values)["sources"]
    fate = source["fate"]
    assert (fate["read"], fate["kept"], fate["dropped"], fate["quarantined"]) == (5, 2, 1, 2)
    assert fate["dropped_because"] == {"over data.max_length, and data.overlong is drop": 1}
    assert [(bad["row"], bad["file"]) for bad in source["quarantine"]["first"]] == [(4, str(path)), (5, str(path))]
    assert source["too_many_bad_rows"]
    spec_values["data"]["max_bad_share"] = 0.4
    assert not looked(spec_values)["sources"][0]["too_many_bad_rows"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"validation": 0}, None),
        ({"validation": 0.1}, "data.validation"),
        ({"validation": 0, "sample": 5}, "data.sample"),
        ({"validation": 0.1, "sample": 0.5}, "data.sample and data.validation"),
        ({"validation": ["FILE"]}, None),
        ({"validation": ["FILE"], "sample": 5}, "data.sample"),
    ],
)
def test_what_is_drawn_from_all_rows_is_said_to_be_left_out(spec_values, data, told):
    train = spec_values["data"]["train"]
    data = {**data, "validation": train if isinstance(data["validation"], list) else data["validation"]}
    spec_values["data"].update(data)
    document = looked(spec_values, num_shown=1, num_read=20)
    assert " and ".join(document["not_applied"]) == (told or "")
    lines = shown(document, 120).splitlines()
    expected = [f"{told}, which draw from all rows"] if told else []
    assert [line.split(None, 2)[2].rstrip() for line in lines if line.startswith("not applied")] == expected
    assert any("micro batches of these rows" in line for line in lines)


def test_bad_rows_are_told_in_the_order_in_which_they_were_read(spec_values, tmp_path):
    """Whether it was the reader or the template that refused them, and whatever the files are called."""
    (tmp_path / "strict.jinja").write_text(
        "{% for m in messages %}{% if 'no' in m.content %}{{ raise_exception('it says no') }}{% endif %}"
        "{% if m.role == 'user' %}{{ 'Q ' + m.content }}{% else %}{{ ' A ' + m.content + eos_token }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ ' A ' }}{% endif %}"
    )
    files = [tmp_path / "b.jsonl", tmp_path / "a.jsonl"]
    for path in files:
        write_messages(path, ("q", "no"), ("q", "a"))
        path.write_text("bad\n" + path.read_text(), encoding="utf-8")
    spec_values["data"].update(train=list(map(str, files)), template=str(tmp_path / "strict.jinja"), validation=0)
    (source,) = looked(spec_values)["sources"]
    expected = [(str(path), row) for path in files for row in (1, 2)]
    assert [(bad["file"], bad["row"]) for bad in source["quarantine"]["first"]] == expected
    assert source["fate"]["kept"] == 2


@pytest.mark.parametrize("overlong", ["truncate", "split_reference"])
def test_a_conversation_without_loss_has_a_reason_that_is_true(spec_values, tmp_path, overlong):
    """Cut off before its answer, or lost as a whole by the reference project's splitter, which cuts nothing off."""
    path = write_messages(tmp_path / "a.jsonl", ("word " * 500, "a"), ("q", "a"))
    spec_values["data"].update(train=[path], overlong=overlong, validation=0)
    (source,) = looked(spec_values)["sources"]
    reason = "no supervised token left: cut off at data.max_length, or lost by split_reference"
    assert source["fate"]["dropped_because"] == {reason: 1}
    assert source["fate"]["exchanges_lost"] == (overlong == "split_reference")


def test_data_of_which_nothing_is_left_is_shown_too(spec_values, tmp_path):
    spec_values["data"]["train"] = [write_messages(tmp_path / "a.jsonl", ("q", "a"))]
    spec_values["data"]["filter"] = {"min_turns": 9}
    document = looked(spec_values)
    (source,) = document["sources"]
    assert (source["rows"], source["samples"]) == (0, [])
    text = shown(document, 80)
    assert "not a single training row is left" in text and "1: number of turns outside data.filter" in text


def test_a_source_without_rows_is_an_error(spec_values, tmp_path):
    (tmp_path / "a.jsonl").write_text("\n\n")
    spec_values["data"]["train"] = [str(tmp_path / "a.jsonl")]
    with pytest.raises(InputError, match=r"data\.train: not a single row in .*a\.jsonl"):
        looked(spec_values)


def test_a_template_that_the_tokenizer_cannot_serve_is_an_invalid_spec(spec_values):
    spec_values["data"]["template"] = "tokenizer"
    with pytest.raises(InputError, match=r"data\.template: ") as caught:
        looked(spec_values)
    assert caught.value.exit_code == 2


def shown(document: dict[str, Any], width: int, colours: bool = False) -> str:
    system = "truecolor" if colours else None
    file = io.StringIO()
    print_preview(
        document, Console(file=file, width=width, force_terminal=colours, color_system=system, no_color=False)
    )
    return file.getvalue()


@pytest.fixture
def nasty(spec_values, tmp_path) -> dict[str, Any]:
    """A preview of one conversation with all that a terminal or rich would obey."""
    train = [write_messages(tmp_path / "nasty[bold].jsonl", (f"q {NASTY}", f"a {NASTY}"))]
    spec_values["data"].update(train=train, max_length=512, validation=0)
    return looked(spec_values)


@pytest.mark.parametrize("width", [60, 200])
def test_what_is_learnt_is_in_brackets_where_there_are_no_colours(nasty, width):
    text = shown(nasty, width)
    assert "\x1b" not in text and "\u202e" not in text
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    harmless = "[bold red]hi[/] ␛[31mred␛[0m <U+202E> :smile: </s> x"
    assert f"<s>User: q {harmless}</s> Assistant: ⟦a {harmless}</s>⟧■" in flat
    assert "nasty[bold].jsonl, row 1" in flat and "messages (1 rows)" in flat


def test_what_is_learnt_has_its_colour(nasty):
    text = shown(nasty, 200, colours=True)
    assert "⟦" not in text
    learnt = re.findall(r"\x1b\[1;32m([^\x1b]*)\x1b\[0m\x1b\[1;2;32m</s>\x1b\[0m\x1b\[2m■", text)
    assert learnt == ["a [bold red]hi[/] ␛[31mred␛[0m <U+202E> :smile: </s> x"]
    codes = set(re.findall(r"\x1b\[[0-9;]*.", text))
    assert codes <= {"\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[1;32m", "\x1b[1;2;32m"}  # none of the data's
