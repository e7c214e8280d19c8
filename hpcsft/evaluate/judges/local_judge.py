"""A Hugging Face model whose verdict is the likelihood of `Output (a)` against that of `Output (b)`.

The two replies are compared at the first token in which they differ, after all that they share.

Shapes: B questions of a batch, P longest question, padded on the left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from hpcsft.data.encode import encode_prefix
from hpcsft.data.formats import RowError, Turn
from hpcsft.data.templates import make_template
from hpcsft.data.tokens import TextEncoder
from hpcsft.errors import InputError, StageError
from hpcsft.evaluate.judges.cost import Budget
from hpcsft.evaluate.judges.protocol import Keep
from hpcsft.evaluate.judges.settings import judge_settings
from hpcsft.evaluate.judges.standing import Standing
from hpcsft.evaluate.verdicts import Comparison, Verdict
from hpcsft.models.load import load_model, pick_device
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.spec.evaluate import JudgeSpec


def judge_dtype() -> str:
    """What a local judge computes in on this machine."""
    return "float32" if pick_device().type == "cpu" else "bfloat16"


class LocalJudge:
    """Reads both answers in one question, in the judge's own chat template if it has one."""

    def __init__(self, spec: JudgeSpec, name: str):
        self.name = name
        self.spec = spec
        self.settings = judge_settings(spec)
        self.tokenizer = load_tokenizer(spec.model)
        self.texts = TextEncoder(self.tokenizer)
        self.template = self._own_template()
        self.model = load_model(spec.model, judge_dtype()).to(pick_device()).eval()
        self.context: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        """Tokens that the judge can read; None if it does not say."""
        self.shared, self.verdict_a, self.verdict_b = self._replies()

    def verdicts(
        self, pairs: Sequence[Comparison], keep: Keep, budget: Budget, standing: Standing | None = None
    ) -> Iterator[None]:
        """See Judge. Questions of like length together, the longest first; what is too long is refused."""
        prefixes = [(self.prefix(pair), pair) for pair in pairs]
        too_long = [(ids, pair) for ids, pair in prefixes if self.context and len(ids) > self.context]
        keep([(pair, self._refusal(len(ids))) for ids, pair in too_long])
        fitting = [(ids, pair) for ids, pair in prefixes if not self.context or len(ids) <= self.context]
        asked = sorted(fitting, key=lambda item: -len(item[0]))
        for start in range(0, len(asked), self.spec.batch_size):
            batch = asked[start : start + self.spec.batch_size]
            likelihoods = self._likelihoods([ids for ids, _ in batch])
            keep(
                [
                    (pair, Verdict(round(likelihood, 6), f"P(Output (a)) = {likelihood:.6f}"))
                    for (_, pair), likelihood in zip(batch, likelihoods, strict=True)
                ]
            )
            yield

    def prefix(self, pair: Comparison) -> list[int]:
        """Token ids of the question and of what both replies begin with. No answer can spell a control token."""
        if self.template is None:
            bos = self.tokenizer.bos_token_id
            text = self.settings.question.text(pair) + self.settings.ending
            return ([] if bos is None else [bos]) + self._ids(text) + self.shared
        turns = [Turn(role, content) for role, content in self.settings.question.messages(pair)]
        try:
            return encode_prefix(self.template, self.texts, turns) + self.shared
        except RowError as error:
            raise StageError(f"the judge {self.spec.model} cannot be asked about row {pair.row}: {error}") from None

    @torch.no_grad()
    def _likelihoods(self, questions: list[list[int]]) -> list[float]:
        """P(Output (a)) for B questions, of the two replies alone."""
        longest = max(map(len, questions))
        padding = [longest - len(ids) for ids in questions]
        rows = [[self.verdict_a] * pad + ids for pad, ids in zip(padding, questions, strict=True)]
        input_ids = torch.tensor(rows)  # [B, P]
        attention_mask = (torch.arange(longest) >= torch.tensor(padding)[:, None]).long()
        logits = self.model(
            input_ids=input_ids.to(self.model.device),
            attention_mask=attention_mask.to(self.model.device),
            position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0).to(self.model.device),
            logits_to_keep=1,
            use_cache=False,
        ).logits[:, -1, [self.verdict_a, self.verdict_b]]
        return logits.float().softmax(-1)[:, 0].tolist()

    def _refusal(self, num_tokens: int) -> Verdict:
        reason = f"refused: the question takes {num_tokens} tokens, and the judge reads {self.context} at most"
        return Verdict(None, reason, refused=True)

    def _own_template(self):
        if not self.tokenizer.chat_template:
            return None
        try:
            return make_template("tokenizer", self.tokenizer)
        except StageError as error:
            reason = error.message.removeprefix("data.template: ")
            raise InputError(f"evaluate.judge.model: {self.spec.model}: {reason}", "take another judge") from None

    def _replies(self) -> tuple[list[int], int, int]:
        """Tokens that both replies begin with, and the first in which they differ."""
        first, second = (self._ids(f"Output ({letter})") for letter in "ab")
        place = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
        return first[:place], first[place], second[place]

    def _ids(self, text: str) -> list[int]:
        return self.texts.encode([text])[0].ids
