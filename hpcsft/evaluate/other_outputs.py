"""Answers that other models gave to the same prompts: model_outputs.json, as AlpacaEval's tools write it. Light."""

from __future__ import annotations

from collections.abc import Sequence

from hpcsft.data.formats import is_unicode
from hpcsft.errors import InputError
from hpcsft.evaluate.outputs import Answer
from hpcsft.evaluate.prompts import Prompt, read_array

_SHAPE = 'a JSON array of {"instruction": "...", "output": "the answer", "generator": "..."}'


def read_outputs(name: str, path: str, prompts: Sequence[Prompt]) -> list[Answer]:
    """The answers in `path`, in the order of `prompts`; the file may hold more than these.

    Raises InputError if the file is of another shape, or an answer is missing: they are joined on the exact
    instruction, and one that was altered would drop out of the win rate without a word.
    """
    where = f"evaluate.outputs.{name}"
    answers: dict[str, str] = {}
    for number, row in enumerate(read_array(path, where, _SHAPE)):
        texts = [row.get(key) if isinstance(row, dict) else None for key in ("instruction", "output")]
        if not all(isinstance(text, str) and is_unicode(text) for text in texts):
            raise InputError(f"{where}: {path}: row {number}: instruction or output is no text", f"expected {_SHAPE}")
        if answers.setdefault(texts[0], texts[1]) != texts[1]:
            raise InputError(f"{where}: {path}: row {number} answers an instruction again, in another way")
    missing = [row for row, prompt in enumerate(prompts) if prompt.instruction not in answers]
    if missing:
        raise InputError(f"{where}: {path}: {_what_is_missing(missing, prompts, answers)}", "see evaluate.prompts")
    return [
        Answer(row=row, instruction=prompt.instruction, output=answers[prompt.instruction], finish="stop", num_tokens=0)
        for row, prompt in enumerate(prompts)
    ]


def _what_is_missing(missing: Sequence[int], prompts: Sequence[Prompt], answers: dict[str, str]) -> str:
    squeezed = {"".join(instruction.split()) for instruction in answers}
    altered = sum("".join(prompts[row].instruction.split()) in squeezed for row in missing)
    text = f"{len(missing)} of {len(prompts)} prompts have no answer, the first is prompt {missing[0]}"
    return f"{text}; {altered} of these instructions were altered (white space)" if altered else text
