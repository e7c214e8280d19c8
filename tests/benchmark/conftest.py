"""Task files as a user writes them, and a package of tasks to find others in."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.conftest import one_thread  # noqa: F401 (a fixture of this package too)

CHOICE = """
task: choice
tag: both
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
ANSWER = """
include: choice.yaml
task: answer
output_type: generate_until
num_fewshot: 2
doc_to_choice: null
doc_to_target: text
generation_kwargs: {until: ["\\n"], max_gen_toks: 4, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
filter_list:
  - {name: stripped, filter: [{function: remove_whitespace}, {function: take_first}]}
"""


@pytest.fixture(scope="session")
def rows(conversations: list[list[str]]) -> list[dict[str, Any]]:
    """24 real questions, each with its answer among those of three others."""
    pairs = [(turns[0], turns[1]) for turns in conversations[:24]]
    answers = [answer for _, answer in pairs]
    made = []
    for number, (question, answer) in enumerate(pairs):
        others = [text for text in answers[number + 1 :] + answers[:number] if text != answer][:3]
        choices = [*others[: number % 4], answer, *others[number % 4 :]]
        made.append({"question": question, "choices": choices, "answer": number % 4, "text": answer})
    return made


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> Path:
    """The tasks `choice` and `answer` with the tag `both`, and the group `all` of the two."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "choice.yaml").write_text(CHOICE)
    (folder / "answer.yaml").write_text(ANSWER)
    (folder / "all.yaml").write_text("group: all\ntask: [choice, answer]\n")
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write task files into a folder of this test's own, and return that."""

    def write_files(**files: str) -> Path:
        folder = tmp_path / "own-tasks"
        for name, text in files.items():
            path = folder / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return folder

    return write_files
