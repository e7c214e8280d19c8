"""The answers of one checkpoint: journaled row by row while they are made, then one file in AlpacaEval's format.

evaluate/CHECKPOINT/answers-0003.jsonl   the journal of task 3, one line per finished answer
evaluate/CHECKPOINT/model_outputs.json   all answers, in the order of the prompts
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hpcsft.errors import InputError
from hpcsft.evaluate.prompts import Prompt
from hpcsft.records import Record, append_jsonl, read_jsonl, write_json
from hpcsft.rundir import RunDir
from hpcsft.spec import ExperimentSpec


class Answer(Record):
    """What a model answered to one prompt."""

    row: int
    """Place of the prompt in the prompts file, counted from 0."""
    instruction: str
    output: str
    finish: Literal["stop", "turn", "length"]
    """Did it end by itself, or begin the user's next turn (which is cut off), or was it cut at max_new_tokens?"""
    num_tokens: int
    """New ones, with those that ended it."""
    batching: str = ""
    """How it was computed with others: sorted/16, continuous. In bfloat16 that changes some answers."""
    dtype: str = ""


def checkpoint_path(run: RunDir, spec: ExperimentSpec, checkpoint: str) -> Path:
    """Folder of the model of `checkpoint`: base, epoch-1, ..."""
    return Path(spec.model.path) if checkpoint == "base" else run.models / checkpoint


def journal(run: RunDir, checkpoint: str, index: int) -> Path:
    """The journal of one task."""
    return run.evaluate / checkpoint / f"answers-{index:04d}.jsonl"


def append_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Add finished answers to a journal; they will not be made again."""
    append_jsonl(path, *(answer.model_dump() for answer in answers))


def read_answers(run: RunDir, checkpoint: str) -> dict[int, Answer]:
    """All answers of `checkpoint` so far, by row."""
    files = sorted((run.evaluate / checkpoint).glob("answers-*.jsonl"))
    answers = [Answer.model_validate(row) for file in files for row in read_jsonl(file)]
    return {answer.row: answer for answer in answers}


def collect_answers(run: RunDir, checkpoint: str, prompts: Sequence[Prompt]) -> list[Answer]:
    """All answers of `checkpoint` in the order of the prompts.

    Raises InputError if some are missing or were given to other instructions.
    """
    answers = read_answers(run, checkpoint)
    missing = [row for row, prompt in enumerate(prompts) if _instruction(answers, row) != prompt.instruction]
    if missing:
        count = f"{len(missing)} of {len(prompts)} answers are missing"
        message = f"{checkpoint}: {count}, the first for prompt {missing[0]}"
        raise InputError(message, "run the stage 'generate' again: it makes only what is missing")
    return [answers[row] for row in range(len(prompts))]


def write_outputs(run: RunDir, name: str, generator: str, answers: Sequence[Answer], prompts: Sequence[Prompt]) -> None:
    """evaluate/NAME/model_outputs.json: the answers, in the order of the prompts."""
    rows = [
        {"instruction": p.instruction, "output": answer.output, "generator": generator, "dataset": p.dataset}
        for p, answer in zip(prompts, answers, strict=True)
    ]
    (run.evaluate / name).mkdir(parents=True, exist_ok=True)
    write_json(run.evaluate / name / "model_outputs.json", rows)


def _instruction(answers: dict[int, Answer], row: int) -> str | None:
    return answers[row].instruction if row in answers else None
