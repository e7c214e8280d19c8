"""Guards transformers' continuous batching: the same greedy answers as sorted batches, ended by the same rules, given
as they are finished; and what happens when it fails.
"""

from __future__ import annotations

import threading

import pytest
import torch

from hpcsft.errors import StageError
from hpcsft.evaluate.generation.answerer import Answerer
from hpcsft.evaluate.outputs import Answer
from tests.evaluate.generation.answering import PROMPTS, answerer_of, answers_of


def without_batching(answers: dict[int, Answer]) -> dict[int, dict[str, object]]:
    return {row: answer.model_dump(exclude={"batching"}) for row, answer in answers.items()}


@pytest.mark.parametrize("stop", [[], ["\nsecond", " four"]])
def test_answers_are_those_of_sorted_batches(answering_model, stop):
    """With texts to stop at, requests are cancelled before transformers would end them."""
    said: list[str] = []
    expected = answers_of(answerer_of(answering_model, say=said.append, batching="sorted", stop=stop))
    answers = answers_of(answerer_of(answering_model, say=said.append, batching="continuous", stop=stop, batch_size=4))
    assert without_batching(answers) == without_batching(expected)
    assert {answer.batching for answer in answers.values()} == {"continuous"}
    assert ("turn" in {answer.finish for answer in answers.values()}) == bool(stop)
    assert not said


def test_answers_are_given_as_they_are_finished_and_no_thread_is_left(answering_model):
    """What is given is journaled; a stage that is told to stop leaves the rest."""
    before = set(threading.enumerate())  # of other tests, or of libraries
    answerer = answerer_of(answering_model, batching="continuous", batch_size=9, max_new_tokens=200)
    found = answerer.answers(PROMPTS, "7/base")
    first = next(answers for answers in found if answers)
    found.close()
    assert len(first) < len(PROMPTS)
    assert set(threading.enumerate()) <= before


def failing(answerer: Answerer, after: int) -> Answerer:
    """An answerer whose model fails once, after so many passes."""
    passes = []

    def fail(_: object, __: object, inputs: dict[str, torch.Tensor]) -> None:
        passes.append(inputs["input_ids"].shape)
        if len(passes) == after + 1:
            raise NotImplementedError("no such kernel")

    answerer.model.register_forward_pre_hook(fail, with_kwargs=True)
    return answerer


@pytest.mark.parametrize("after", [0, 12])
def test_auto_goes_on_with_sorted_batches_if_it_fails(answering_model, monkeypatch, after):
    """Without a GPU auto is sorted: it is told to be continuous here."""
    said: list[str] = []
    monkeypatch.setattr("hpcsft.evaluate.generation.answerer.choose_batching", lambda *_: "continuous")
    answerer = failing(answerer_of(answering_model, say=said.append, batching="auto", batch_size=4), after)
    answers = answers_of(answerer)
    assert said == ["continuous batching failed, sorted batches from here on: no such kernel"]
    assert without_batching(answers) == without_batching(answers_of(answerer_of(answering_model)))
    ways = {answer.batching for answer in answers.values()}
    assert ways == ({"sorted/4", "continuous"} if after else {"sorted/4"})


def test_who_asks_for_it_is_told_that_it_fails(answering_model):
    answerer = failing(answerer_of(answering_model, batching="continuous"), 0)
    with pytest.raises(StageError, match="continuous batching failed: no such kernel") as caught:
        answers_of(answerer)
    assert caught.value.hint == 'set evaluate.generation.batching to "sorted"'


def test_attention_that_it_does_not_know_is_a_failure(answering_model):
    answerer = answerer_of(answering_model, batching="continuous")
    answerer.model.set_attn_implementation("flex_attention")
    with pytest.raises(StageError, match=r"continuous batching failed: ValueError: .*flex_attention is not supported"):
        answers_of(answerer)
