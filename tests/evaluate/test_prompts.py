"""Guards that the prompts are read as AlpacaEval keeps them, and that a file of another shape is refused by row before
anything is paid for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcsft.errors import InputError
from hpcsft.evaluate.prompts import Prompt, load_prompts

GOOD = {"instruction": "What is 1 + 1?", "output": "2"}


def written(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def test_rows_are_read_in_order_and_unchanged(tmp_path, conversations):
    unique = dict(pair[:2] for pair in conversations)
    rows = [{"instruction": q, "output": a, "generator": "g", "dataset": "d"} for q, a in unique.items()]
    rows[0]["instruction"] = "  spaces and\nlines are part of it \n"
    prompts = load_prompts(written(tmp_path / "prompts.json", rows))
    assert [prompt.model_dump() for prompt in prompts] == rows


def test_what_may_be_left_out_has_a_name(tmp_path):
    rows = [GOOD, {**GOOD, "instruction": "b", "generator": None, "dataset": None, "more": [1]}]
    prompts = load_prompts(str(written(tmp_path / "prompts.json", rows)))
    assert prompts[0] == Prompt(instruction=GOOD["instruction"], output="2", generator="reference", dataset="")
    assert (prompts[1].generator, prompts[1].dataset) == ("reference", "")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[{", r"not valid JSON: "),
        ("[]", r"this is an empty array"),
        ({"instruction": "a"}, r"this is an object"),
        ([GOOD, ["a", "b"]], r"row 1 is an array, no object"),
        ([{"output": "a"}], r"row 0: 'instruction' is missing or no text"),
        ([{"instruction": " ", "output": "a"}], r"row 0: 'instruction' is missing or no text"),
        ([GOOD, {"instruction": "a", "output": None}], r"row 1: 'output' is missing or no text"),
        ([GOOD, {"instruction": "b", "output": "2"}, GOOD], r"row 2 repeats an instruction"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, value, reason):
    with pytest.raises(InputError, match=rf"evaluate\.prompts: .*prompts\.json: {reason}"):
        load_prompts(written(tmp_path / "prompts.json", value))


def test_a_file_that_is_no_text_or_not_there_is_named(tmp_path):
    (tmp_path / "binary.json").write_bytes(b'["\xff\xfe"]')
    with pytest.raises(InputError, match=r"binary\.json: not valid JSON"):
        load_prompts(tmp_path / "binary.json")
    with pytest.raises(InputError, match=r"missing\.json: cannot be read: No such file"):
        load_prompts(tmp_path / "missing.json")


def test_text_that_is_no_unicode_is_refused(tmp_path):
    with pytest.raises(InputError, match="row 0"):
        load_prompts(written(tmp_path / "prompts.json", '[{"instruction": "cut: \\ud83d", "output": "a"}]'))
