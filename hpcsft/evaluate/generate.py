"""The stage `generate`: answers of every checkpoint to this task's share of the prompts, in batches.

Shapes: B prompts of a batch, P longest prefix. Prompts of like length are answered together, padded on the left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from hpcsft.data.encode import encode_prefix
from hpcsft.data.formats import RowError, Turn
from hpcsft.data.pieces import Template
from hpcsft.data.tokens import TextEncoder
from hpcsft.data.trained_template import trained_template
from hpcsft.errors import StageError
from hpcsft.evaluate.outputs import Answer, append_answers, checkpoint_path, journal, read_answers
from hpcsft.evaluate.prompts import Prompt, load_prompts
from hpcsft.models.load import load_model, pick_device
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.spec.evaluate import GenerationSpec
from hpcsft.stage import StageContext, require


def generate(context: StageContext) -> None:
    """The body of the stage."""
    run, spec = context.run, context.spec
    prompts = load_prompts(spec.evaluate.prompts)
    rows = range(context.index, len(prompts), context.stage.tasks)
    checkpoints = spec.evaluated_checkpoints()
    total = len(rows) * len(checkpoints)
    done = 0
    for checkpoint in checkpoints:
        path = checkpoint_path(run, spec, checkpoint)
        require(path, "train")
        (run.evaluate / checkpoint).mkdir(parents=True, exist_ok=True)
        answered = {row: answer.instruction for row, answer in read_answers(run, checkpoint).items()}
        missing = {row: prompts[row] for row in rows if answered.get(row) != prompts[row].instruction}
        done += len(rows) - len(missing)
        context.progress(done, total, "answers")
        if not missing:
            continue
        model = load_model(str(path), spec.model.dtype, spec.model.attention).to(pick_device()).eval()
        tokenizer = load_tokenizer(str(path))
        answerer = Answerer(model, tokenizer, trained_template(run, spec, tokenizer), spec.evaluate.generation)
        mine = {row: prompts[row] for row in rows}
        for answers in answerer.answers(mine, f"{spec.seed}/{checkpoint}", only=set(missing)):
            append_answers(journal(run, checkpoint, context.index), answers)
            done += len(answers)
            context.progress(done, total, "answers")
            context.stop_if_asked()
        context.say(f"{checkpoint}: {len(missing)} answers")
        del answerer, model  # or two models are on the GPU while the next one loads
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class Answerer:
    """A model that answers instructions."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, template: Template, settings: GenerationSpec):
        self.model = model
        self.model.generation_config = GenerationConfig()  # what the model recommends would be mixed into ours
        self.tokenizer = tokenizer
        self.template = template
        self.texts = TextEncoder(tokenizer)
        self.settings = settings
        ends = {self.template.end, tokenizer.eos_token_id} - {None}
        self.generation = GenerationConfig(
            max_new_tokens=settings.max_new_tokens,
            do_sample=settings.temperature > 0,
            temperature=settings.temperature or None,
            top_k=0 if settings.temperature else None,
            eos_token_id=sorted(ends),
            pad_token_id=self.template.end,
        )
        self.ends = ends

    def prefix(self, instruction: str) -> list[int]:
        """What the model is given: by default exactly what a training row holds before its first answer.

        StageError if the template cannot express the instruction.
        """
        if self.settings.prompt_style == "template":
            try:
                return encode_prefix(self.template, self.texts, [Turn("user", instruction)])
            except RowError as error:
                raise StageError(f"evaluate.prompts: {instruction[:80]!r}: {error}") from None
        bos = self.tokenizer.bos_token_id
        return ([bos] if bos is not None else []) + self.texts.encode([instruction])[0].ids

    def answers(self, prompts: dict[int, Prompt], seed: str, only: set[int] | None = None) -> Iterator[list[Answer]]:
        """Answers to `prompts` (row -> prompt), a batch at a time, those with the longest prefixes first.

        With `only`, answers to those rows. The batches are the same then, and so is what is sampled from them.
        """
        prefixes = {row: self.prefix(prompt.instruction) for row, prompt in prompts.items()}
        order = sorted(prefixes, key=lambda row: (-len(prefixes[row]), row))
        size = self.settings.batch_size
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            wanted = rows if only is None else [row for row in rows if row in only]
            if not wanted:
                continue
            torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed}/{rows}".encode()).digest()[:8], "big") >> 1)
            outputs = dict(zip(rows, self._generate([prefixes[row] for row in rows]), strict=True))
            yield [self._answer(row, prompts[row], outputs[row]) for row in wanted]

    @torch.no_grad()
    def _generate(self, prefixes: Sequence[list[int]]) -> list[list[int]]:
        """New tokens after each prefix, the end token included if it came."""
        input_ids, attention_mask = left_padded(prefixes, self.template.end)
        output = self.model.generate(
            input_ids=input_ids.to(self.model.device),
            attention_mask=attention_mask.to(self.model.device),
            generation_config=self.generation,
        )
        return [self._until_end(ids) for ids in output[:, input_ids.shape[1] :].tolist()]

    def _until_end(self, ids: list[int]) -> list[int]:
        for place, token in enumerate(ids):
            if token in self.ends:
                return ids[: place + 1]
        return ids

    def _answer(self, row: int, prompt: Prompt, ids: list[int]) -> Answer:
        ended = bool(ids) and ids[-1] in self.ends
        text = self.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
        return Answer(
            row=row,
            instruction=prompt.instruction,
            output=text.strip(),
            finish="stop" if ended else "length",
            num_tokens=len(ids),
        )


def left_padded(sequences: Sequence[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids and attention_mask, int64 [B, P]. The mask comes from the lengths: `pad` may be a real token."""
    longest = max(len(ids) for ids in sequences)
    input_ids = torch.tensor([[pad] * (longest - len(ids)) + ids for ids in sequences])
    attention_mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in sequences])
    return input_ids, attention_mask
