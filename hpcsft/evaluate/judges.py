"""Who compares two answers: an OpenAI-compatible endpoint, or a local Hugging Face model.

Both read the same question, in our own words, and say `Output (a)` or `Output (b)`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from typing import Any, Protocol

from hpcsft.errors import StageError
from hpcsft.evaluate.verdicts import Comparison, Verdict
from hpcsft.spec.evaluate import JudgeSpec

QUESTION = """Two assistants answered the same instruction. Decide which answer a careful reader would prefer: \
the one that is more correct, more helpful and better written. The order in which they stand means nothing.

Instruction:
{instruction}

Output (a):
{first}

Output (b):
{second}

Which of the two is better? Reply with exactly "Output (a)" or "Output (b)"."""

MAX_TOKENS = 50
LEGACY_MODELS = ("gpt-3.5-turbo-instruct", "davinci-002", "babbage-002")
KEPT = "what was judged is kept; python jobs/judge.py RUN_DIR goes on from there"


class Judge(Protocol):
    """Compares pairs of answers."""

    name: str
    """How the judge is called in annotations and tables."""

    def verdicts(self, pairs: Sequence[Comparison]) -> Iterator[tuple[Comparison, Verdict]]:
        """A verdict on every pair, in any order, each as soon as it is there."""


def make_judge(spec: JudgeSpec) -> Judge:
    """The judge that `spec` describes. StageError says what it lacks."""
    return LocalJudge(spec) if spec.kind == "local" else OpenAIJudge(spec)


def judge_name(spec: JudgeSpec) -> str:
    """KIND/MODEL; of a local model the folder's name."""
    return f"{spec.kind}/{os.path.basename(spec.model) if spec.kind == 'local' else spec.model}"


def judge_identity(spec: JudgeSpec) -> str:
    """Everything that a verdict depends on besides the two answers; part of the key of each verdict."""
    return "\n".join([spec.kind, spec.model, spec.api, spec.base_url or "", QUESTION])


def question(pair: Comparison) -> str:
    """What a judge is asked."""
    return QUESTION.format(instruction=pair.instruction, first=pair.first, second=pair.second)


def parse_verdict(text: str) -> Verdict:
    """The verdict in a judge's reply: exactly one of `Output (a)` and `Output (b)` at the start of a line."""
    found = set(re.findall(r"(?:^|\n)[ \t]*Output \(([ab])\)", text))
    return Verdict({"a": 1.0, "b": 0.0}[found.pop()] if len(found) == 1 else None, text)


class OpenAIJudge:
    """Any endpoint that speaks OpenAI's chat or legacy completions API."""

    def __init__(self, spec: JudgeSpec):
        try:
            import openai
        except ImportError:
            hint = "pip install 'hpcsft[openai]', then python jobs/judge.py RUN_DIR: the answers are kept"
            raise StageError("the judge needs the package openai, which is not installed", hint) from None
        key = os.environ.get(spec.api_key_env)
        if not key and spec.base_url is None:
            hint = f"export {spec.api_key_env}=..., then python jobs/judge.py RUN_DIR: the answers are kept"
            raise StageError(f"the judge needs a key, but {spec.api_key_env} is not set", hint)
        self.spec = spec
        self.legacy = spec.api == "completions" or (spec.api == "auto" and spec.model.startswith(LEGACY_MODELS))
        self.client = openai.OpenAI(api_key=key or "none", base_url=spec.base_url, max_retries=5, timeout=120)
        self.failure: type[Exception] = openai.OpenAIError
        self.refusal: type[Exception] = openai.BadRequestError
        self.name = judge_name(spec)

    def verdicts(self, pairs: Sequence[Comparison]) -> Iterator[tuple[Comparison, Verdict]]:
        """Verdicts as they come, max_concurrency requests at once. What the endpoint refuses has no verdict."""
        with ThreadPoolExecutor(self.spec.max_concurrency) as pool:
            asked = {pool.submit(self._ask, pair): pair for pair in pairs}
            failed: Exception | None = None
            try:
                for future in as_completed(asked):
                    try:
                        verdict = self._verdict(future)
                    except CancelledError:
                        continue
                    except (self.failure, AttributeError, IndexError, TypeError, ValueError) as error:
                        failed = failed or error
                        for other in asked:
                            other.cancel()
                        continue  # what is being answered has been paid for
                    yield asked[future], verdict
            finally:
                for future in asked:
                    future.cancel()
        if isinstance(failed, self.failure):
            raise StageError(f"the judge {self.spec.model} does not answer: {failed}", KEPT)
        if failed:
            message = f"the judge {self.spec.model} answers in no form of OpenAI's API: {failed}"
            raise StageError(message, f"is evaluate.judge.base_url right? {KEPT}")

    def _verdict(self, future: Future[str]) -> Verdict:
        try:
            return parse_verdict(future.result())
        except self.refusal as error:  # too long for the judge, or stopped by a filter: the other pairs go on
            return Verdict(None, f"refused: {error}")

    def _ask(self, pair: Comparison) -> str:
        settings: dict[str, Any] = {"model": self.spec.model, "max_tokens": MAX_TOKENS, "temperature": 0}
        if self.legacy:
            return self.client.completions.create(prompt=question(pair) + "\n\n", **settings).choices[0].text
        messages = [{"role": "user", "content": question(pair)}]
        return self.client.chat.completions.create(messages=messages, **settings).choices[0].message.content or ""


class LocalJudge:
    """A Hugging Face model whose verdict is the likelihood of `Output (a)` against that of `Output (b)`.

    The two replies are compared at the first token in which they differ, after all that they share.
    """

    def __init__(self, spec: JudgeSpec):
        from hpcsft.data.tokens import TextEncoder
        from hpcsft.models.load import load_model, pick_device
        from hpcsft.models.tokenizer import load_tokenizer

        self.spec = spec
        self.name = judge_name(spec)
        self.tokenizer = load_tokenizer(spec.model)
        self.texts = TextEncoder(self.tokenizer)
        device = pick_device()
        self.model = load_model(spec.model, "float32" if device.type == "cpu" else "bfloat16").to(device).eval()
        self.shared, self.verdict_a, self.verdict_b = self._replies()

    def verdicts(self, pairs: Sequence[Comparison]) -> Iterator[tuple[Comparison, Verdict]]:
        """Verdicts, questions of like length together, the longest first."""
        import torch

        from hpcsft.evaluate.generate import left_padded

        asked = sorted(((self._prefix(question(pair)), pair) for pair in pairs), key=lambda item: -len(item[0]))
        for start in range(0, len(asked), self.spec.batch_size):
            batch = asked[start : start + self.spec.batch_size]
            input_ids, attention_mask = left_padded([ids for ids, _ in batch], self.verdict_a)
            with torch.no_grad():
                logits = self.model(
                    input_ids=input_ids.to(self.model.device),
                    attention_mask=attention_mask.to(self.model.device),
                    position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0).to(self.model.device),
                    logits_to_keep=1,
                    use_cache=False,
                ).logits[:, -1, [self.verdict_a, self.verdict_b]]
            likelihoods = logits.float().softmax(-1)[:, 0].tolist()
            for (_, pair), first_better in zip(batch, likelihoods, strict=True):
                yield pair, Verdict(round(first_better, 6), f"P(Output (a)) = {first_better:.6f}")

    def _replies(self) -> tuple[list[int], int, int]:
        """Tokens that both replies begin with, and the first in which they differ."""
        first, second = (self._ids(f"Output ({letter})") for letter in "ab")
        place = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
        return first[:place], first[place], second[place]

    def _prefix(self, text: str) -> list[int]:
        """The question in the judge's own chat template, then what both replies begin with. No text of the answers can
        spell a control token: the template is rendered around a placeholder, and the question tokenized apart."""
        if not self.tokenizer.chat_template:
            bos = self.tokenizer.bos_token_id
            return ([] if bos is None else [bos]) + self._ids(text + "\n\n") + self.shared
        mark = "\u241fquestion\u241f"
        rendered = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": mark}], tokenize=False, add_generation_prompt=True
        )
        head, tail = rendered.split(mark)
        control = [self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (head, tail)]
        return control[0] + self._ids(text) + control[1] + self.shared

    def _ids(self, text: str) -> list[int]:
        return self.texts.encode([text])[0].ids
