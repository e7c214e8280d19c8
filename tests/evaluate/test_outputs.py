"""Guards that answers reach the judge complete, in the order of the prompts, and each beside the instruction that it
was given to.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsft.errors import InputError
from hpcsft.evaluate.outputs import (
    Answer,
    append_answers,
    checkpoint_path,
    collect_answers,
    journal,
    read_answers,
    write_outputs,
)
from hpcsft.evaluate.prompts import load_prompts
from hpcsft.records import read_json
from hpcsft.rundir import RunDir
from hpcsft.spec import parse_spec


@pytest.fixture
def setting(spec_values) -> tuple:
    """A run with a folder for epoch-1, its spec and its prompts."""
    spec = parse_spec(spec_values)
    run = RunDir(spec.run_path)
    (run.evaluate / "epoch-1").mkdir(parents=True)
    return run, spec, load_prompts(spec.evaluate.prompts)


def answer(row: int, instruction: str, text: str = "an answer") -> Answer:
    return Answer(row=row, instruction=instruction, output=f"{text} {row}", finish="stop", num_tokens=3)


def test_answers_are_collected_in_the_order_of_the_prompts(setting):
    run, _, prompts = setting
    answers = [answer(row, prompt.instruction) for row, prompt in enumerate(prompts)]
    append_answers(journal(run, "epoch-1", 1), answers[:0:-2])
    append_answers(journal(run, "epoch-1", 0), answers[0::2][::-1])
    assert collect_answers(run, "epoch-1", prompts) == answers
    write_outputs(run, "epoch-1", "tiny/epoch-1", answers, prompts)
    rows = read_json(run.evaluate / "epoch-1" / "model_outputs.json")
    assert rows == [
        {"instruction": p.instruction, "output": a.output, "generator": "tiny/epoch-1", "dataset": "trivia"}
        for p, a in zip(prompts, answers, strict=True)
    ]


def test_missing_answers_are_counted_and_the_first_is_named(setting):
    run, _, prompts = setting
    for row in (0, 1, 3):
        append_answers(journal(run, "epoch-1", 0), [answer(row, prompts[row].instruction)])
    with pytest.raises(InputError, match=r"epoch-1: 3 of 6 answers are missing, the first for prompt 2"):
        collect_answers(run, "epoch-1", prompts)
    with pytest.raises(InputError, match=r"epoch-2: 6 of 6 answers are missing, the first for prompt 0"):
        collect_answers(run, "epoch-2", prompts)


def test_an_answer_to_another_instruction_is_none(setting):
    run, _, prompts = setting
    answers = [answer(row, prompt.instruction) for row, prompt in enumerate(prompts)]
    answers[2] = answer(2, prompts[2].instruction + " ")
    append_answers(journal(run, "epoch-1", 0), answers)
    with pytest.raises(InputError, match="1 of 6 answers are missing, the first for prompt 2"):
        collect_answers(run, "epoch-1", prompts)


def test_a_torn_line_costs_one_answer(setting):
    run, _, prompts = setting
    path = journal(run, "epoch-1", 0)
    append_answers(path, [answer(row, prompts[row].instruction) for row in range(3)])
    path.write_bytes(path.read_bytes()[:-9])
    append_answers(path, [answer(4, "x")])
    assert sorted(read_answers(run, "epoch-1")) == [0, 1, 4]


def test_a_later_answer_replaces_an_earlier_one(setting):
    run, _, _ = setting
    append_answers(journal(run, "epoch-1", 0), [answer(0, "old", "old")])
    append_answers(journal(run, "epoch-1", 0), [answer(0, "new", "new")])
    assert read_answers(run, "epoch-1")[0].output == "new 0"


def test_the_base_model_is_where_the_spec_says(setting, tiny_model):
    run, spec, _ = setting
    assert checkpoint_path(run, spec, "base") == Path(tiny_model)
    assert checkpoint_path(run, spec, "epoch-2") == run.models / "epoch-2"
