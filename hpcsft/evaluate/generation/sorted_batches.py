"""Batches of questions of like length. Whoever is answered leaves its batch at once, and others join it.

A step costs time for every row and for itself: a batch that waits for its longest answer pays for rows that are done,
one that only shrinks pays for steps with few rows.

Shapes: B rows of the batch, W columns (the longest row so far), V vocabulary. Padding is on the left.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

from hpcsft.errors import StageError
from hpcsft.evaluate.generation.ending import Ending, Finish
from hpcsft.evaluate.generation.kv_cache import can_change_rows, join_rows, keep_rows, new_cache
from hpcsft.evaluate.generation.padding import left_padded
from hpcsft.evaluate.generation.questions import Question
from hpcsft.evaluate.generation.sampling import Sampler

JOIN_SHARE = 0.125
"""Of the places of a batch that have to be free before others join: each time costs a step of its own."""


class Answered(NamedTuple):
    """A question's answer, as tokens."""

    row: int
    ids: list[int]
    """New tokens, with what ended them."""
    finish: Finish
    batching: str
    """How it was batched."""


class _Row(NamedTuple):
    question: Question
    ids: list[int]
    stream: torch.Generator | None


def answer_sorted(
    model: PreTrainedModel,
    questions: Sequence[Question],
    ending: Ending,
    sampler: Sampler,
    batch_size: int,
    say: Callable[[str], None],
) -> Iterator[list[Answered]]:
    """Answers as they are finished, after every step of the model (so that often there are none).

    Batches are halved when the GPU has not enough memory; StageError if that does not help.
    """
    waiting = deque(sorted(questions, key=lambda question: (-len(question.prefix), question.row)))
    batch = Batch(model, ending, sampler, f"sorted/{batch_size}")
    while waiting or batch.rows:
        joining = [waiting.popleft() for _ in range(batch.room(batch_size, len(waiting)))]
        try:
            found = batch.step(joining)
        except torch.OutOfMemoryError:
            found = None
        if found is not None:
            yield found
            continue
        again = list({question.row: question for question in [*batch.unfinished(), *joining]}.values())
        if len(again) == 1:
            raise StageError(
                f"evaluate.generation: out of GPU memory with one prompt of {len(again[0].prefix)} tokens alone",
                "ask for GPUs with more memory, or for more of them (cluster.generate.gpus_per_node)",
            )
        batch_size = len(again) // 2
        waiting.extendleft(reversed(again))
        batch = Batch(model, ending, sampler, f"sorted/{batch_size}")
        torch.cuda.empty_cache()
        say(f"out of GPU memory: batches of {batch_size} from here on")


class Batch:
    """Rows that are computed together."""

    def __init__(self, model: PreTrainedModel, ending: Ending, sampler: Sampler, name: str):
        self.rows: list[_Row] = []
        self._model = model
        self._ending = ending
        self._sampler = sampler
        self._name = name
        self._cache = DynamicCache()
        self._mask = torch.zeros(0, 0, dtype=torch.int64)
        self._changes = True
        """Can rows leave and join? If not, they stay until all are done."""
        self._done: set[int] = set()
        parameters = inspect.signature(model.forward).parameters
        self._positions = "position_ids" in parameters
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    def room(self, size: int, num_waiting: int) -> int:
        """How many of those that wait may join now, if the batch may have `size` rows."""
        free = size - len(self.rows)
        number = min(free, num_waiting)
        if self.rows and (not self._changes or number < min(size * JOIN_SHARE, num_waiting)):
            return 0
        return number

    def unfinished(self) -> list[Question]:
        """The questions whose answers are under way."""
        return [row.question for row in self.rows if row.question.row not in self._done]

    @torch.inference_mode()
    def step(self, joining: Sequence[Question]) -> list[Answered]:
        """Let questions join with their first tokens, or else go on by one token; returns those that end there."""
        if not joining:
            tokens = torch.tensor([[row.ids[-1]] for row in self.rows], device=self._model.device)
            self._mask = functional.pad(self._mask, (0, 1), value=1)
            return self._take(self.rows, self._logits(tokens, self._mask, self._cache))
        input_ids, mask = left_padded([question.prefix for question in joining], pad=0)
        cache = new_cache(self._model.config)
        mask = mask.to(self._model.device)
        logits = self._logits(input_ids.to(self._model.device), mask, cache)
        streams = [self._sampler.stream(question.seed, logits.device) for question in joining]
        rows = [_Row(question, [], stream) for question, stream in zip(joining, streams, strict=True)]
        self._join(rows, mask, cache)
        return self._take(rows, logits)

    def _join(self, rows: list[_Row], mask: torch.Tensor, cache: DynamicCache) -> None:
        if self.rows:
            join_rows(self._cache, cache)
            width = max(self._mask.shape[1], mask.shape[1])
            parts = [functional.pad(part, (width - part.shape[1], 0)) for part in (self._mask, mask)]
            self._mask = torch.cat(parts)
        else:
            self._cache, self._mask, self._changes = cache, mask, can_change_rows(cache)
        self.rows = [*self.rows, *rows]

    def _logits(self, input_ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """Of the next token, float32 [B, V]; `mask` int64 [B, W] covers what is in the cache and `input_ids`."""
        positions = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if self._positions else {}
        inputs = self._model.prepare_inputs_for_generation(
            input_ids,
            past_key_values=cache,
            attention_mask=mask,
            is_first_iteration=cache.get_seq_length() == 0,
            use_cache=True,
            **positions,
            **self._extra,
        )
        return self._model(**inputs, return_dict=True).logits[:, -1].float()

    def _take(self, rows: Sequence[_Row], logits: torch.Tensor) -> list[Answered]:
        """Add the next token of `rows`, the last ones of the batch; those that end leave."""
        tokens = self._sampler.pick(logits, [row.stream for row in rows])
        found = []
        for row, token in zip(rows, tokens, strict=True):
            if row.question.row in self._done:
                continue
            row.ids.append(token)
            if finish := self._ending.finish(row.ids, row.question.budget):
                found.append(Answered(row.question.row, row.ids, finish, self._name))
        if found:
            self._leave({answered.row for answered in found})
        return found

    def _leave(self, answered: set[int]) -> None:
        self._done |= answered
        places = [place for place, row in enumerate(self.rows) if row.question.row not in self._done]
        if places and not self._changes:
            return
        self.rows = [self.rows[place] for place in places]
        if self.rows:
            self._mask = self._mask[places]
            padding = int(self._mask.argmax(dim=1).min())
            self._mask = self._mask[:, padding:]
            keep_rows(self._cache, places, padding)
