"""Answerers of the prompts that `answering_model` knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpcsft.data.templates import make_template
from hpcsft.evaluate.generation.answerer import Answerer
from hpcsft.evaluate.outputs import Answer
from hpcsft.evaluate.prompts import Prompt
from hpcsft.models.load import load_model
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.spec.evaluate import GenerationSpec
from tests.evaluate.conftest import QUESTIONS

PROMPTS = {row: Prompt(instruction=question, output="x") for row, question in enumerate(QUESTIONS)}


def answerer_of(
    folder: Path, template: str = "user_assistant", say: Callable[[str], None] = print, **settings: Any
) -> Answerer:
    """An Answerer with the model in `folder`, in float32."""
    tokenizer = load_tokenizer(str(folder))
    spec = GenerationSpec(**{"max_new_tokens": 40, **settings})
    model = load_model(str(folder), "float32").eval()
    return Answerer(model, tokenizer, make_template(template, tokenizer), spec, say)


def answers_of(answerer: Answerer, prompts: Mapping[int, Prompt] = PROMPTS, seed: str = "7/base") -> dict[int, Answer]:
    """All answers by row."""
    return {answer.row: answer for found in answerer.answers(prompts, seed) for answer in found}
