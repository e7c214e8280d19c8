"""Guards that another model's answers are compared prompt by prompt, none lost, and that a file that does not fit is
refused with what is wrong.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hpcsft.errors import InputError
from hpcsft.evaluate.other_outputs import read_outputs
from hpcsft.evaluate.prompts import Prompt

PROMPTS = [Prompt(instruction=f"Question {n}?", output=f"reference {n}") for n in range(4)]
ROWS = [{"instruction": p.instruction, "output": f"answer {n}", "generator": "x"} for n, p in enumerate(PROMPTS)]


def written(tmp_path: Path, rows: Any) -> str:
    file = tmp_path / "model_outputs.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    return str(file)


def test_answers_are_joined_on_the_instruction_in_whatever_order_they_stand(tmp_path):
    extra = {"instruction": "Another?", "output": "not asked"}
    answers = read_outputs("falcon", written(tmp_path, [extra, *ROWS[::-1]]), PROMPTS)
    assert [(a.row, a.instruction, a.output) for a in answers] == [
        (n, p.instruction, f"answer {n}") for n, p in enumerate(PROMPTS)
    ]


BAD = {
    "one is missing": (ROWS[1:], "1 of 4 prompts have no answer, the first is prompt 0"),
    "one is altered": (
        [*ROWS[:2], {**ROWS[2], "instruction": "Question\n2? "}, ROWS[3]],
        "1 of 4 prompts have no answer, the first is prompt 2; 1 of these instructions were altered (white space)",
    ),
    "two answers to one": ([*ROWS, {**ROWS[1], "output": "b"}], "row 4 answers an instruction again, in another way"),
    "no text": ([{**ROWS[0], "output": None}], "row 0: instruction or output is no text"),
    "no object": (["x"], "row 0: instruction or output is no text"),
    "broken Unicode": ([{**ROWS[0], "output": "\ud800"}], "row 0: instruction or output is no text"),
    "no array": ({"a": 1}, "this is an object"),
}


@pytest.mark.parametrize(("rows", "message"), BAD.values(), ids=BAD)
def test_a_file_that_does_not_fit_is_refused(tmp_path, rows, message):
    with pytest.raises(InputError, match=rf"^evaluate\.outputs\.falcon: .*{re.escape(message)}"):
        read_outputs("falcon", written(tmp_path, rows), PROMPTS)


def test_the_same_answer_twice_does_no_harm(tmp_path):
    assert len(read_outputs("falcon", written(tmp_path, ROWS + ROWS), PROMPTS)) == 4
