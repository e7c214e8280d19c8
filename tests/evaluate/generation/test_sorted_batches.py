"""Guards the batches: whoever is beside a row, joins or leaves, its answer is that of the definition; nothing is
computed for rows that are done; and a GPU that is full ends nothing.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from hpcsft.errors import StageError
from hpcsft.evaluate.generation import sorted_batches
from hpcsft.evaluate.generation.questions import Question
from hpcsft.evaluate.generation.sampling import Sampler
from hpcsft.evaluate.generation.sorted_batches import Answered, answer_sorted
from hpcsft.models.load import load_model
from hpcsft.spec.evaluate import GenerationSpec
from tests.architectures import folders

KINDS = ("llama-3", "mistral", "qwen2", "qwen3", "baichuan2")
"""Mistral with a sliding window of 24 columns, which some rows fill at once, some later, some never."""


class AtBudget:
    """Answers end when they have all the tokens that they may have, or at token 5."""

    def finish(self, ids: list[int], budget: int) -> str | None:
        return "stop" if ids[-1] == 5 else "length" if len(ids) >= budget else None


def questions_of(number: int) -> list[Question]:
    draw = random.Random(number)
    return [
        Question(row, [draw.randrange(6, 90) for _ in range(draw.randint(1, 40))], draw.randint(1, 30), row)
        for row in range(number)
    ]


def make(kind: str) -> PreTrainedModel:
    return folders.make(kind, 100, {"bos_token_id": 1, "eos_token_id": 2}).eval()


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return make("mistral")


def found_by(
    model: PreTrainedModel, questions: list[Question], batch_size: int, settings: GenerationSpec | None = None
) -> Iterator[list[Answered]]:
    sampler = Sampler(settings or GenerationSpec())
    return answer_sorted(model, questions, AtBudget(), sampler, batch_size, SAID.append)


SAID: list[str] = []


@pytest.fixture(autouse=True)
def nothing_said() -> None:
    SAID.clear()


def by_row(found: Iterable[list[Answered]]) -> dict[int, list[int]]:
    answers = [answered for some in found for answered in some]
    assert len({answered.row for answered in answers}) == len(answers)
    return {answered.row: answered.ids for answered in answers}


@torch.no_grad()
def one_by_one(model: PreTrainedModel, questions: list[Question]) -> dict[int, list[int]]:
    """The likeliest token again and again, without padding and without cache."""
    answers = {}
    for question in questions:
        ids: list[int] = []
        while not ids or AtBudget().finish(ids, question.budget) is None:
            logits = model(input_ids=torch.tensor([question.prefix + ids]), use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
        answers[question.row] = ids
    return answers


@pytest.fixture
def passes(model: PreTrainedModel) -> Iterator[list[tuple[int, int]]]:
    """(rows, columns) of what the model is given."""
    seen: list[tuple[int, int]] = []
    hook = model.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    yield seen
    hook.remove()


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_definition(kind, tmp_path):
    if kind == "baichuan2":
        model = load_model(str(folders.published(kind, tmp_path / kind, Path())), "float32").eval()
    else:
        model = make(kind)
    questions = questions_of(16)
    expected = one_by_one(model, questions)
    assert len({len(ids) for ids in expected.values()}) > 5
    for batch_size in (1, 3, 100):
        assert by_row(found_by(model, questions, batch_size)) == expected


def test_rows_leave_when_they_are_done_and_others_join(model, passes):
    questions = questions_of(23)
    answers = by_row(found_by(model, questions, 8))
    assert sum(rows for rows, _ in passes) == sum(map(len, answers.values()))
    assert max(rows for rows, columns in passes if columns == 1) == 8
    joined = [rows for rows, columns in passes if columns > 1]
    assert joined[0] == 8 and len(joined) > 3


@pytest.mark.parametrize("lengths", [(5, 40), (40, 5), (12, 30)])
def test_whoever_joins_may_be_longer_or_shorter(model, lengths):
    """Than the sliding window, too."""
    first, second = (
        question._replace(prefix=[row * 7 + place % 50 + 6 for place in range(length)], budget=30)
        for row, (question, length) in enumerate(zip(questions_of(2), lengths, strict=True))
    )
    batch = sorted_batches.Batch(model, AtBudget(), Sampler(GenerationSpec()), "x")
    found = [batch.step([first]), batch.step([]), batch.step([second])]
    while batch.rows:
        found.append(batch.step([]))
    assert by_row(found) == one_by_one(model, [first, second])


def test_padding_that_no_row_needs_is_cropped(model):
    """A long row that is done must not make all that come after it as long."""
    long, *short = questions_of(5)
    long = long._replace(prefix=[7] * 200, budget=1)
    short = [question._replace(prefix=question.prefix[:10], budget=20) for question in short]
    batch = sorted_batches.Batch(model, AtBudget(), Sampler(GenerationSpec()), "x")
    batch.step([long, *short])
    batch.step([])
    assert batch._mask.shape == (4, 1 + max(len(question.prefix) for question in short))
    assert all(layer.keys.shape[2] <= batch._mask.shape[1] for layer in batch._cache.layers)


def test_a_cache_whose_rows_cannot_leave_is_kept_until_all_are_done(model, passes, monkeypatch):
    monkeypatch.setattr(sorted_batches, "can_change_rows", lambda _: False)
    questions = questions_of(10)
    expected = one_by_one(model, questions)
    passes.clear()
    assert by_row(found_by(model, questions, 4)) == expected
    assert {rows for rows, _ in passes} == {4, 2}


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_with_too_little_memory_batches_get_smaller(model, temperature):
    """Nothing is lost or drawn otherwise: rows that were under way begin anew."""
    questions = questions_of(12)
    settings = GenerationSpec(temperature=temperature)
    expected = by_row(found_by(model, questions, 12, settings))
    hook = model.register_forward_pre_hook(full_beyond(3), with_kwargs=True)
    found = [answered for some in found_by(model, questions, 12, settings) for answered in some]
    hook.remove()
    assert {answered.row: answered.ids for answered in found} == expected
    said = [f"out of GPU memory: batches of {size} from here on" for size in (6, 3)]
    assert said == SAID
    assert {answered.batching for answered in found} == {"sorted/3"}


def test_rows_that_were_under_way_are_not_lost(model):
    """The GPU is full at one pass: a later step, or when others join."""
    questions = questions_of(12)
    expected = by_row(found_by(model, questions, 5))
    for number in range(1, 18, 4):
        numbers = itertools.count()

        def full(*_: object, numbers: Iterator[int] = numbers, number: int = number) -> None:
            if next(numbers) == number:
                raise torch.OutOfMemoryError("CUDA out of memory")

        hook = model.register_forward_pre_hook(full, with_kwargs=True)
        found = found_by(model, questions, 5)
        assert by_row(found) == expected
        hook.remove()
    assert len(SAID) == 5


def test_a_prompt_that_needs_too_much_memory_is_told(model):
    hook = model.register_forward_pre_hook(full_beyond(0), with_kwargs=True)
    with pytest.raises(StageError, match="out of GPU memory with one prompt of 40 tokens alone") as caught:
        by_row(found_by(model, [Question(0, [7] * 40, 3, 0), *questions_of(5)[1:]], 4))
    hook.remove()
    assert "cluster.generate.gpus_per_node" in caught.value.hint


def full_beyond(size: int) -> Callable[..., None]:
    """A hook that does what a GPU does on which so many rows have room."""

    def check(_: object, __: object, inputs: dict[str, torch.Tensor]) -> None:
        if len(inputs["input_ids"]) > size:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return check
