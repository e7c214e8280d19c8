"""A model that answers prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from transformers import PreTrainedModel

from hpcsft.data.pieces import Template
from hpcsft.errors import StageError
from hpcsft.evaluate.generation.continuous import ContinuousFailed, answer_continuously
from hpcsft.evaluate.generation.ending import Ending
from hpcsft.evaluate.generation.questions import Question, Questioner
from hpcsft.evaluate.generation.sampling import Sampler
from hpcsft.evaluate.generation.sorted_batches import Answered, answer_sorted
from hpcsft.evaluate.outputs import Answer
from hpcsft.evaluate.prompts import Prompt
from hpcsft.spec.evaluate import GenerationSpec


class Answerer:
    """Puts together how prompts are asked, answers computed and ended."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        template: Template,
        settings: GenerationSpec,
        say: Callable[[str], None] = print,
    ):
        self.model = model
        self.settings = settings
        self.questioner = Questioner(model.config, tokenizer, template, settings)
        self.ending = Ending(tokenizer, template, settings)
        self.batching = choose_batching(model, settings)
        self._say = say

    def answers(self, prompts: Mapping[int, Prompt], seed: str) -> Iterator[list[Answer]]:
        """Answers to `prompts` (row -> prompt) as they are finished; often an empty list, between two steps.

        What is sampled depends on `seed` and the instruction, not on the other prompts. StageError before the first
        if a prompt cannot be asked, or later if there is not enough memory.
        """
        questions = {question.row: question for question in self.questioner.questions(prompts, seed)}
        for found in self._found(questions):
            for answered in found:
                del questions[answered.row]
            yield [self._answer(prompts[answered.row].instruction, answered) for answered in found]

    def _found(self, questions: dict[int, Question]) -> Iterator[list[Answered]]:
        size = self.settings.batch_size
        if self.batching == "continuous" and questions:
            try:
                yield from answer_continuously(self.model, list(questions.values()), self.ending, size)
            except ContinuousFailed as error:
                if self.settings.batching == "continuous":
                    hint = 'set evaluate.generation.batching to "sorted"'
                    raise StageError(f"continuous batching failed: {error}", hint) from None
                self._say(f"continuous batching failed, sorted batches from here on: {error}")
        rest = list(questions.values())
        yield from answer_sorted(self.model, rest, self.ending, Sampler(self.settings), size, self._say)

    def _answer(self, instruction: str, answered: Answered) -> Answer:
        return Answer(
            row=answered.row,
            instruction=instruction,
            output=self.ending.text(answered.ids),
            finish=answered.finish,
            num_tokens=len(answered.ids),
            batching=answered.batching,
            dtype=str(self.model.dtype).removeprefix("torch."),
        )


def choose_batching(model: PreTrainedModel, settings: GenerationSpec) -> str:
    """sorted or continuous: auto is continuous for greedy answers on one GPU."""
    if settings.batching != "auto":
        return settings.batching
    alone = model.device.type == "cuda" and not hasattr(model, "hf_device_map")
    return "continuous" if alone and settings.temperature == 0 else "sorted"
