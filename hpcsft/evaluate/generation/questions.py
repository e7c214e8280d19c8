"""What a model is given: the tokens before its answer, how long that may become, and the seed of its draws."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from transformers import PreTrainedConfig

from hpcsft.data.encode import encode_prefix
from hpcsft.data.formats import RowError, Turn
from hpcsft.data.pieces import Template
from hpcsft.data.tokens import TextEncoder
from hpcsft.errors import StageError
from hpcsft.evaluate.prompts import Prompt
from hpcsft.spec.evaluate import GenerationSpec


class Question(NamedTuple):
    """One prompt, ready to be answered."""

    row: int
    """Place of the prompt in the prompts file, counted from 0."""
    prefix: list[int]
    """Tokens that the model is given."""
    budget: int
    """New tokens at most."""
    seed: int
    """Of this answer's own stream of random numbers."""


class Questioner:
    """Makes questions of prompts."""

    def __init__(self, config: PreTrainedConfig, tokenizer: Any, template: Template, settings: GenerationSpec):
        self.context: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
        """Tokens that the model can attend to, those of the answer included; None if it does not say."""
        self._template = template
        self._texts = TextEncoder(tokenizer)
        self._settings = settings
        self._head, self._tail = _around(tokenizer)

    def questions(self, prompts: Mapping[int, Prompt], seed: str) -> list[Question]:
        """The questions of `prompts` (row -> prompt). The draws of each depend on `seed` and its instruction alone.

        StageError if the template cannot express a prompt, or a prompt leaves no room for an answer.
        """
        return [self._question(row, prompt.instruction, seed) for row, prompt in prompts.items()]

    def prefix(self, instruction: str) -> list[int]:
        """By default exactly what a training row holds before its first answer; or the bare instruction, as the
        tokenizer gives it. What an instruction spells is never a control token. StageError as above.
        """
        if self._settings.prompt_style == "raw":
            return [*self._head, *self._texts.encode([instruction])[0].ids, *self._tail]
        try:
            return encode_prefix(self._template, self._texts, [Turn("user", instruction)])
        except RowError as error:
            raise StageError(f"evaluate.prompts: {instruction[:80]!r}: {error}") from None

    def _question(self, row: int, instruction: str, seed: str) -> Question:
        prefix = self.prefix(instruction)
        room = self._settings.max_new_tokens
        if self.context is not None:
            room = min(room, self.context - len(prefix))
        if room <= 0:
            raise StageError(
                f"evaluate.prompts: row {row} takes {len(prefix)} tokens; the model's context of {self.context} tokens "
                "leaves no room for an answer",
                "take the row out of the prompts file, or evaluate a model with a longer context",
            )
        draw = hashlib.sha256(f"{seed}\0{instruction}".encode()).digest()
        return Question(row, prefix, room, int.from_bytes(draw[:8], "big") >> 1)


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text by its own settings."""
    bare = tokenizer("x", add_special_tokens=False)["input_ids"]
    whole = tokenizer("x")["input_ids"]
    start = next(place for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]
