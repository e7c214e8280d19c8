"""transformers' own continuous batching, whose pages of keys and values suit the attention kernels of GPUs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager

from hpcsft.evaluate.generation.ending import Ending
from hpcsft.evaluate.generation.questions import Question
from hpcsft.evaluate.generation.sorted_batches import Answered

NAME = "continuous"
WAIT_S = 0.5
"""For an answer, before the caller may look whether somebody has asked to stop."""
PAGE_TOKENS = 32
"""On a CPU, where the memory that is to be had is no measure of what a cache may take."""

logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)  # what matters of it is in ContinuousFailed


class ContinuousFailed(Exception):
    """It ended without answers to all; what it had answered was given."""


def answer_continuously(
    model: PreTrainedModel, questions: Sequence[Question], ending: Ending, batch_size: int
) -> Iterator[list[Answered]]:
    """Greedy answers as they are finished, and an empty list when there was none for a while.

    How many are computed at once follows from the memory of the GPU; on a CPU it is `batch_size`. Raises
    ContinuousFailed for all that transformers raises: attention that it does not know, memory.
    """
    try:
        manager = _manager(model, questions, ending, batch_size)
    except Exception as error:
        raise ContinuousFailed(f"{type(error).__name__}: {error}") from None
    try:
        manager.start()
        yield from _answers(manager, questions, ending)
    finally:
        if manager.is_running():
            manager.stop(hard_stop=True)
        manager.destroy()


@torch.no_grad()
def _manager(
    model: PreTrainedModel, questions: Sequence[Question], ending: Ending, batch_size: int
) -> ContinuousBatchingManager:
    config = ContinuousBatchingConfig(
        auto_switch_to_flash=False,  # `choose_attention` has; and this would ask the network for kernels
        allow_block_sharing=False,  # blocks of a request that is cancelled may be gone when they are to be shared
    )
    if model.device.type == "cpu":
        longest = max(len(question.prefix) + question.budget for question in questions)
        config.page_size = PAGE_TOKENS
        config.num_blocks = batch_size * -(-longest // PAGE_TOKENS)
        config.max_batch_tokens = max(512, batch_size)
        config.max_requests_per_batch = batch_size
    generation = GenerationConfig(do_sample=False, eos_token_id=ending.tokens())
    manager = model.init_continuous_batching(generation_config=generation, continuous_batching_config=config)
    manager.warmup()
    for question in sorted(questions, key=lambda question: -len(question.prefix)):
        manager.add_request(
            question.prefix,
            request_id=str(question.row),
            max_new_tokens=question.budget,
            eos_token_id=ending.tokens(),
            streaming=bool(ending.texts),  # transformers does not look for texts
        )
    return manager


def _answers(
    manager: ContinuousBatchingManager, questions: Sequence[Question], ending: Ending
) -> Iterator[list[Answered]]:
    budgets = {question.row: question.budget for question in questions}
    while budgets:
        output = manager.get_result(timeout=WAIT_S)
        if output is None:
            if not manager.is_running() or manager.background_thread_status.fatal_error:
                raise ContinuousFailed(str(manager.background_thread_status.fatal_error or "it ended"))
            yield []
            continue
        if output.error is not None:
            raise ContinuousFailed(output.error)
        row, ids = int(output.request_id), output.generated_tokens
        if row not in budgets:
            continue  # tokens that were under way when it was cancelled
        finish = ending.finish(ids, budgets[row])
        if finish is None and not output.is_finished():
            continue
        del budgets[row]
        if not output.is_finished():
            manager.cancel_request(output.request_id)
        yield [Answered(row, ids, finish or "length", NAME)]
