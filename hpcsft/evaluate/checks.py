"""What is wrong with answers, found before a judge is paid for them. Pure.

evaluate/checks.json   Checks of every checkpoint, by name
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from hpcsft.errors import Waiting
from hpcsft.evaluate.outputs import Answer
from hpcsft.records import Record
from hpcsft.spec.evaluate import ChecksSpec

KINDS = {
    "echo": "repeat the prompt",
    "empty": "are empty",
    "leftover": "hold markers of a template",
    "loop": "end in a loop",
    "cut": "were cut at max_new_tokens",
}
"""Kind -> what such answers do."""

EXAMPLES = 5
"""Rows of each kind that are named."""

SHORT = 15
"""Characters up to which an instruction may well be repeated by a good answer: `Hello`."""

LOOP_CHARACTERS = 80
"""Least length of what is taken for a loop, in which a text stands at least LOOP_TIMES one after the other."""
LOOP_TIMES = 3
LOOP_TAIL = 4000

LEFTOVER = re.compile(
    r"<\|[a-z_]{2,30}\|>"  # ChatML, Llama 3, GPT
    r"|</?s>|\[/?INST\]|<<SYS>>|<reserved_\d+>|<unk>"
    r"|^\s{0,3}#{2,3} ?(?:Instruction|Response|Input):"
    r"|^\s{0,3}(?:User|Human|Assistant|USER|ASSISTANT): ",
    re.MULTILINE,
)
"""What chat templates put around turns."""


class Checks(Record):
    """How many answers of one checkpoint have something wrong, each kind counted apart."""

    num_answers: int
    echo: int = 0
    """The answer begins with its prompt."""
    empty: int = 0
    """It has no text."""
    leftover: int = 0
    """Markers of a template stand in it."""
    loop: int = 0
    """It ends in a loop."""
    cut: int = 0
    """It was cut at max_new_tokens."""
    examples: dict[str, list[int]] = {}
    """Kind -> rows of the first such answers, counted from 0."""

    def told(self) -> str:
        """In one line: `16 answers: 3 were cut at max_new_tokens (rows 1, 4, 7)`."""
        found = [
            f"{count} {what} (row{'s' if count > 1 else ''} {', '.join(map(str, self.examples[kind]))}"
            + (", ...)" if count > len(self.examples[kind]) else ")")
            for kind, what in KINDS.items()
            if (count := getattr(self, kind))
        ]
        return f"{self.num_answers} answers: {'; '.join(found) or 'nothing found'}"


def check_answers(answers: Sequence[Answer]) -> Checks:
    """Count what is wrong with `answers`."""
    rows: dict[str, list[int]] = {}
    for answer in answers:
        for kind in _kinds(answer):
            rows.setdefault(kind, []).append(answer.row)
    counts = {kind: len(found) for kind, found in rows.items()}
    return Checks(num_answers=len(answers), **counts, examples={kind: found[:EXAMPLES] for kind, found in rows.items()})


def refuse_bad(checks: Mapping[str, Checks], limits: ChecksSpec) -> None:
    """Waiting if a checkpoint has more bad answers of a kind than `limits` allows; it names all of them."""
    bad = [
        f"{name}: {getattr(found, kind)} of {found.num_answers} answers {what} (evaluate.checks.{kind} is {limit:g})"
        for name, found in checks.items()
        for kind, what in KINDS.items()
        if getattr(found, kind) > (limit := getattr(limits, kind)) * found.num_answers
    ]
    if bad:
        hint = (
            "look at evaluate/CHECKPOINT/model_outputs.json (evaluate/checks.json names rows); to judge them all the "
            "same: python jobs/judge.py RUN_DIR --force"
        )
        raise Waiting(f"no judge is paid for such answers: {'; '.join(bad)}", hint)


def _kinds(answer: Answer) -> Iterator[str]:
    if not answer.output.strip():
        yield "empty"
    if repeats_prompt(answer.instruction, answer.output):
        yield "echo"
    if LEFTOVER.search(answer.output):
        yield "leftover"
    if ends_in_loop(answer.output):
        yield "loop"
    if answer.finish == "length":
        yield "cut"


def repeats_prompt(instruction: str, output: str) -> bool:
    """Does the answer begin with its prompt, whatever the white space and a role's name before it?"""
    prompt, text = " ".join(instruction.split()), " ".join(output.split())
    text = re.sub(r"^(?:User|Human|USER):\s*", "", text)
    return len(prompt) > SHORT and text.startswith(prompt)


def ends_in_loop(text: str) -> bool:
    """Is the end of `text` one piece over and over? Z function of its reverse, linear in the length of the tail."""
    tail = text.rstrip()[-LOOP_TAIL:][::-1]
    size, reach = len(tail), [0] * len(tail)
    left = right = 0
    for place in range(1, size):
        length = min(right - place, reach[place - left]) if place < right else 0
        while place + length < size and tail[length] == tail[place + length]:
            length += 1
        if place + length > right:
            left, right = place, place + length
        reach[place] = length
        if place + length >= max(LOOP_CHARACTERS, LOOP_TIMES * place):
            return True
    return False
