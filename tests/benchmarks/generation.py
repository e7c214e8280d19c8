"""Speed of answering real prompts: hpcsft and transformers' own ways, side by side in one run.

    python -m tests.benchmarks.generation [--precisions float32 bfloat16] [--lengths equal unequal]
        [--ways NAME ...] [--repeats 3] [--new-tokens 64] [--prompts 32] [--model .quickstart/model]

Every way answers the same prompts greedily, in the template of training, on the same two cores; each repeat runs all
ways in turn. Tokens are new ones that belong to an answer: what a static batch computes for rows that are done is not
counted. Equal lengths: every answer has all the new tokens. Unequal: each has a length of its own, from an eighth of
them to four times as many, most of them short; nobody is told before, it shows when the end comes. One at a time stops
at that length itself.

Figures are medians, and the best of the repeats. A run during which other processes took more than a tenth of the CPU
time is tried again, twice at most.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    ContinuousBatchingConfig,
    GenerationConfig,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from hpcsft.data.templates import make_template
from hpcsft.evaluate.generation.continuous import answer_continuously
from hpcsft.evaluate.generation.ending import Ending
from hpcsft.evaluate.generation.padding import left_padded
from hpcsft.evaluate.generation.questions import Question, Questioner
from hpcsft.evaluate.generation.sampling import Sampler
from hpcsft.evaluate.generation.sorted_batches import answer_sorted
from hpcsft.evaluate.prompts import load_prompts
from hpcsft.models.load import load_model
from hpcsft.models.tokenizer import load_tokenizer
from hpcsft.spec.evaluate import GenerationSpec
from tests.benchmarks.children import CORES, take_cores

BATCH = 16
DISTURBED = 0.1
"""Share of the CPU time of the machine that other processes took, beyond which a run is tried again."""
TRIES = 3
GOALS = {"float32": 4.5, "bfloat16": 6.0}
"""How much faster than one at a time answers of equal lengths are to be."""
NOTHING = GenerationSpec(stop=[])


class Task(NamedTuple):
    """What every way is given."""

    model: PreTrainedModel
    tokenizer: Any
    questions: list[Question]
    ending: Ending


Answers = dict[int, list[int]]
"""New tokens by row."""


class OwnLength(StoppingCriteria):
    """Ends rows after as many new tokens as their questions have for a budget."""

    def __init__(self, start: int, questions: list[Question]):
        self.lengths = torch.tensor([start + question.budget for question in questions])

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return input_ids.shape[1] >= self.lengths


def static(task: Task, batches: list[list[Question]]) -> Answers:
    """transformers' generate on each of the batches."""
    found: Answers = {}
    for batch in batches:
        input_ids, attention_mask = left_padded([question.prefix for question in batch], 0)
        output = task.model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            generation_config=GenerationConfig(
                max_new_tokens=max(question.budget for question in batch), do_sample=False, pad_token_id=0
            ),
            stopping_criteria=StoppingCriteriaList([OwnLength(input_ids.shape[1], batch)]),
        )
        for question, ids in zip(batch, output[:, input_ids.shape[1] :].tolist(), strict=True):
            found[question.row] = ids[: question.budget]
    return found


def cut(questions: list[Question], size: int) -> list[list[Question]]:
    """Batches of `size` in the order of `questions`."""
    return [questions[start : start + size] for start in range(0, len(questions), size)]


def longest_first(questions: list[Question]) -> list[Question]:
    """By the length of the prefix."""
    return sorted(questions, key=lambda question: -len(question.prefix))


def one_at_a_time(task: Task) -> Answers:
    return static(task, cut(task.questions, 1))


def static_batches(task: Task) -> Answers:
    return static(task, cut(task.questions, BATCH))


def static_sorted(task: Task) -> Answers:
    return static(task, cut(longest_first(task.questions), BATCH))


def generate_batch(task: Task) -> Answers:
    """transformers' continuous batching as it comes, but for the memory that it may take."""
    found: Answers = {}
    config = ContinuousBatchingConfig(auto_switch_to_flash=False, max_memory_percent=0.2)
    with task.model.continuous_batching_context_manager(
        generation_config=GenerationConfig(do_sample=False, eos_token_id=-1), continuous_batching_config=config
    ) as manager:
        for question in task.questions:
            manager.add_request(question.prefix, request_id=str(question.row), max_new_tokens=question.budget)
        while len(found) < len(task.questions):
            output = manager.get_result(timeout=1)
            if output is not None:
                assert output.error is None, output.error
                found[int(output.request_id)] = output.generated_tokens
    return found


def ours(task: Task) -> Answers:
    found = answer_sorted(task.model, task.questions, task.ending, Sampler(NOTHING), BATCH, print)
    return {answered.row: answered.ids for some in found for answered in some}


def ours_continuous(task: Task) -> Answers:
    found = answer_continuously(task.model, task.questions, task.ending, BATCH)
    return {answered.row: answered.ids for some in found for answered in some}


WAYS: dict[str, Callable[[Task], Answers]] = {
    "one at a time": one_at_a_time,
    f"generate, batches of {BATCH}": static_batches,
    f"generate, batches of {BATCH}, sorted": static_sorted,
    "continuous batching of transformers": generate_batch,
    "hpcsft, sorted": ours,
    "hpcsft, continuous": ours_continuous,
}
BASELINE = "one at a time"
OWN = "hpcsft, sorted"


class NoEnd(Ending):
    """Answers end at their budgets only, so that every way makes the same tokens."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def tokens(self) -> list[int]:
        return [-1]  # none

    def finish(self, ids: list[int], budget: int) -> str | None:
        return "length" if len(ids) >= budget else None


def tasks(arguments: argparse.Namespace, precision: str) -> Iterator[tuple[str, Task]]:
    """The task of each kind of lengths."""
    model, tokenizer = load_model(str(arguments.model), precision).eval(), load_tokenizer(str(arguments.model))
    model.generation_config = GenerationConfig()
    template = make_template("user_assistant", tokenizer)
    settings = GenerationSpec(max_new_tokens=arguments.new_tokens, stop=[])
    prompts = dict(enumerate(load_prompts(arguments.prompt_file)[: arguments.prompts]))
    questions = Questioner(model.config, tokenizer, template, settings).questions(prompts, "0")
    draw = random.Random(0)
    for lengths in arguments.lengths:
        chosen = questions
        if lengths == "unequal":
            own = [round(arguments.new_tokens * 2 ** draw.triangular(-3, 2, -2)) for _ in questions]
            chosen = [question._replace(budget=budget) for question, budget in zip(questions, own, strict=True)]
        yield lengths, Task(model, tokenizer, chosen, NoEnd())


def measure(way: Callable[[Task], Answers], task: Task) -> tuple[float, Answers]:
    """(new tokens per second, answers) of the least disturbed of a few runs."""
    least: tuple[float, float, Answers] | None = None
    for _ in range(TRIES):
        busy_s, own_s, started = busy_seconds(), time.process_time(), time.perf_counter()
        answers = way(task)
        seconds, own_s = time.perf_counter() - started, time.process_time() - own_s
        others = max(0.0, 1 - own_s / max(busy_seconds() - busy_s, 0.01))
        tokens = sum(map(len, answers.values()))
        if least is None or others < least[0]:
            least = others, tokens / seconds, answers
        if others <= DISTURBED:
            break
    return least[1], least[2]


def busy_seconds() -> float:
    """CPU time of all processes of the machine, and what a hypervisor took away."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, soft, steal, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + soft + steal) / 100


def compare(task: Task, ways: list[str], repeats: int) -> tuple[dict[str, list[float]], dict[str, Answers]]:
    """Speeds of every way, and its answers."""
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    answers: dict[str, Answers] = {}
    for _ in range(repeats):
        for way in ways:
            speed, answers[way] = measure(WAYS[way], task)
            speeds[way].append(speed)
            print(f"{speed:8.1f} tokens/s  {way}", file=sys.stderr, flush=True)
    return speeds, answers


def table(title: str, speeds: dict[str, list[float]], answers: dict[str, Answers]) -> str:
    """A line per way: speed, times the baseline, how many answers are the baseline's."""
    middle = {way: statistics.median(found) for way, found in speeds.items()}
    lines = [f"\n{title}", f"{'':40} tokens/s (best)   ratio   same answers"]
    for way, found in speeds.items():
        same = sum(answers[way][row] == ids for row, ids in answers[BASELINE].items())
        ratio = middle[way] / middle[BASELINE]
        lines.append(f"{way:40} {middle[way]:8.1f} {max(found):7.1f} {ratio:7.2f}   {same} of {len(answers[way])}")
    return "\n".join(lines)


def goals(precision: str, lengths: str, speeds: dict[str, list[float]]) -> str:
    """What is asked of `OWN`, and whether it is so."""
    middle = {way: statistics.median(found) for way, found in speeds.items()}
    others = max(speed for way, speed in middle.items() if not way.startswith("hpcsft"))
    asked = [("best of transformers' own ways", middle[OWN] / others, 1.0)]
    if lengths == "equal":
        asked.append((BASELINE, middle[OWN] / middle[BASELINE], GOALS[precision]))
    return "\n".join(
        f"{'reached' if ratio >= goal else 'MISSED'}: {ratio:.2f} times {name}, goal {goal}"
        for name, ratio, goal in asked
    )


def main() -> int:
    """Measure and print a table per precision and kind of lengths, and the conditions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precisions", nargs="+", default=list(GOALS), choices=GOALS)
    parser.add_argument("--lengths", nargs="+", default=["equal", "unequal"], choices=["equal", "unequal"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--threads", type=int, default=CORES)
    parser.add_argument("--model", type=Path, default=Path(".quickstart/model"), help="Hugging Face folder")
    parser.add_argument("--prompt-file", type=Path, default=Path(".quickstart/prompts.json"))
    parser.add_argument("--json", type=Path, help="write every single measurement there")
    arguments = parser.parse_args()
    take_cores()
    torch.set_num_threads(arguments.threads)
    if not arguments.model.exists():
        print(f"error: no model in {arguments.model}", file=sys.stderr)
        print("hint: python -m hpcsft.quickstart .quickstart makes one", file=sys.stderr)
        return 2
    ways = list(dict.fromkeys([BASELINE, *arguments.ways]))
    everything: dict[str, Any] = {}
    for precision in arguments.precisions:
        for lengths, task in tasks(arguments, precision):
            speeds, answers = compare(task, ways, arguments.repeats)
            new = [question.budget for question in task.questions]
            title = f"{precision}, answers of {lengths} lengths ({min(new)} to {max(new)} tokens, {sum(new)} in all)"
            print(table(title, speeds, answers), flush=True)
            if OWN in ways:
                print(goals(precision, lengths, speeds), flush=True)
            everything[title] = speeds
            if arguments.json:
                arguments.json.write_text(json.dumps(everything, indent=1))
    print(conditions(arguments))
    return 0


def conditions(arguments: argparse.Namespace) -> str:
    """Where and how it was measured."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    return (
        f"\nmodel {arguments.model}, {arguments.prompts} prompts of {arguments.prompt_file}, "
        f"{arguments.new_tokens} new tokens, medians of {arguments.repeats}\n"
        f"{arguments.threads} threads on {CORES} of {os.cpu_count()} cores, {(names or [platform.machine()])[0]}, "
        f"{packages}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    sys.exit(main())
