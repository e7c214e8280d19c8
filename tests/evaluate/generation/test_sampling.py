"""Guards sampling: tokens come as often as their probabilities say, and what one answer draws hangs on nothing but its
own stream.
"""

from __future__ import annotations

import pytest
import torch

from hpcsft.evaluate.generation.sampling import Sampler
from hpcsft.evaluate.prompts import Prompt
from hpcsft.spec.evaluate import GenerationSpec
from tests.evaluate.generation.answering import PROMPTS, answerer_of, answers_of

LOGITS = torch.tensor([2.0, 1.0, 0.5, -1.0, -float("inf")])
DRAWS = 20_000


@pytest.mark.parametrize(
    ("settings", "logits"),
    [
        ({"temperature": 1.0}, LOGITS),
        ({"temperature": 2.0}, LOGITS / 2),
        ({"temperature": 1.0, "top_k": 2}, LOGITS.masked_fill(LOGITS < 1, -float("inf"))),
        ({"temperature": 0.5, "top_p": 0.9}, (LOGITS * 2).masked_fill(LOGITS < 1, -float("inf"))),
    ],
)
def test_tokens_are_drawn_by_their_probability(settings, logits):
    sampler = Sampler(GenerationSpec(**settings))
    stream = sampler.stream(5, torch.device("cpu"))
    expected = torch.softmax(logits, 0)
    tokens = sampler.pick(LOGITS.expand(DRAWS, -1), [stream] * DRAWS)
    found = torch.bincount(torch.tensor(tokens), minlength=5) / DRAWS
    deviation = (expected * (1 - expected) / DRAWS).sqrt()
    assert bool(((found - expected).abs() <= 4 * deviation).all())


def test_greedy_draws_nothing():
    sampler = Sampler(GenerationSpec())
    assert sampler.stream(5, torch.device("cpu")) is None
    assert sampler.pick(torch.stack([LOGITS, -LOGITS[:4].repeat(2)[:5]]), [None, None]) == [0, 3]


@pytest.fixture(scope="module")
def answerer(answering_model):
    return answerer_of(answering_model, temperature=2.5, max_new_tokens=12)


def test_what_is_sampled_hangs_on_the_instruction_and_not_on_the_others(answering_model, answerer):
    """Not on the batch, the share of a task, the place in the file, or what is left to do."""
    whole = {answer.instruction: answer.output for answer in answers_of(answerer).values()}
    assert len(set(whole.values())) > 5
    for batch_size in (1, 2, 5):
        other = answerer_of(answering_model, temperature=2.5, max_new_tokens=12, batch_size=batch_size)
        assert {answer.instruction: answer.output for answer in answers_of(other).values()} == whole
    half = {100 - row: prompt for row, prompt in PROMPTS.items() if row % 2}
    assert len(half) == 4
    for answer in answers_of(answerer, half).values():
        assert answer.output == whole[answer.instruction]


def test_another_seed_or_checkpoint_draws_otherwise(answerer):
    def drawn(seed: str) -> list[str]:
        return [answer.output for _, answer in sorted(answers_of(answerer, seed=seed).items())]

    assert drawn("7/base") == drawn("7/base")
    assert len({tuple(drawn(seed)) for seed in ("7/base", "7/epoch-1", "8/base")}) == 3


def test_two_prompts_draw_each_for_itself(answerer):
    """Were the streams alike, prompts whose logits are alike would get the same answers."""
    prompts = {row: Prompt(instruction=f"Say {row}", output="x") for row in range(2)}
    first, second = (question.seed for question in answerer.questioner.questions(prompts, "7/base"))
    assert first != second
