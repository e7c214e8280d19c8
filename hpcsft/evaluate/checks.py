"""What is wrong with answers, found before a judge is paid for them. Pure.

evaluate/checks.json   Checks of every checkpoint, by name
"""

from __future__ import annotations

import re
import unicodedata
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
"""Columns up to which an instruction may well be repeated by a good answer: `Hello`. A Chinese character has two."""

LOOP_CHARACTERS = 80
"""Least length of what is taken for a loop, in which a text stands at least LOOP_TIMES one after the other."""
LOOP_TIMES = 3
LOOP_TAIL = 4000
LOOP_SIGNS = 400
"""The same for a piece that says nothing, such as `-` or `| 0 | 0 |`: rules and tables repeat it too."""

LIST_NUMBER = re.compile(r"(?<!\S)\d+(?=[.)]\s)")
"""Counts on while a list repeats its one item."""

MARKER = re.compile(
    r"<[|｜][^\s<>|｜]{2,40}[|｜]>"  # ChatML, Llama 3, GPT; DeepSeek's are full-width
    r"|<(?:start_of_turn|end_of_turn|bos|eos|pad|unk)>|<reserved_\d+>|\[/?INST\]|<</?SYS>>|</?s>"
)
"""What chat templates put around turns, and nobody else."""

STRIKE_THROUGH = re.compile(r"(?<!^)<s>.*?</s>", re.DOTALL)
"""HTML. At the start of an answer it is a template's first token."""

ANSWERS_ROLE = re.compile(r"(?:\*\*)?(?:(?:Assistant|ASSISTANT|助手) ?[:：]|#{2,3} ?Response:)")
"""How a template, then an answer with too much of it, begins."""

NEXT_TURN = re.compile(r"(?:\*\*)?(?:(?:User|USER|Human|用户|ユーザー) ?[:：]|#{2,3} ?(?:Instruction|Input):)")
"""How a line begins with which an answer goes on as another speaker."""

LABEL = re.compile(r"[\s>*_#-]{0,6}\w[\w ]{0,30}[:：]")
"""How lines of a dialogue or a list of terms begin."""

DIALOGUE = re.compile(
    r"dialog|conversation|\bchat|script\b|interview|role-?play|template|prompt|对话|聊天|模板|会話|対話", re.IGNORECASE
)
"""Words of prompts that may well ask for such lines."""

LEAD = re.compile(
    rf"^(?:{MARKER.pattern}|[\s\"'`“”„«»‘’「」『』#*_>-]"
    r"|(?:Question|Prompt|Instruction|User|Human|Q|问题|用户|質問|問題|ユーザー) ?[:：])+",
    re.IGNORECASE,
)
"""Markup, quotes and labels that may stand before a repeated prompt."""


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
    if not any(_is_seen(character) for character in answer.output):
        yield "empty"
    if repeats_prompt(answer.instruction, answer.output):
        yield "echo"
    if holds_leftover(answer.instruction, answer.output):
        yield "leftover"
    if ends_in_loop(answer.output):
        yield "loop"
    if answer.finish == "length":
        yield "cut"


def _is_seen(character: str) -> bool:
    """White space is not, nor are zero-width signs and byte order marks."""
    return not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf")


def repeats_prompt(instruction: str, output: str) -> bool:
    """Does the answer begin with its prompt, whatever white space, markup, quotes and labels stand before it?"""
    prompt, text = (LEAD.sub("", " ".join(given.split())) for given in (instruction, output))
    return _columns(prompt) > SHORT and text.startswith(prompt)


def _columns(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


def holds_leftover(instruction: str, output: str) -> bool:
    """Does a template show through: markers that are not in the prompt, a role before the answer, a further turn?

    Roles are words too. They count where nothing else makes sense of them: not after a prompt that asks for such
    lines, in dialogues, lists of terms and code, or in what a line with a colon at its end introduces.
    """
    text = output.strip()
    if any(found not in instruction for found in MARKER.findall(STRIKE_THROUGH.sub("", text))):
        return True
    if ANSWERS_ROLE.match(text):
        return not any(ANSWERS_ROLE.match(line.strip()) for line in instruction.splitlines())
    if DIALOGUE.search(instruction) or LABEL.match(text):
        return False
    if any(NEXT_TURN.match(line.strip()) for line in instruction.splitlines()):
        return False
    before, in_code = "", False
    for line in filter(None, map(str.strip, text.splitlines())):
        in_code ^= line.startswith("```")
        introduced = not before or before.endswith((":", "：")) or LABEL.match(before)
        if NEXT_TURN.match(line) and not in_code and not introduced:
            return True
        before = line
    return False


def ends_in_loop(text: str) -> bool:
    """Is the end of `text` one piece over and over, but for the numbers of a list?

    Z function of its reverse, linear in the length of the tail.
    """
    tail = LIST_NUMBER.sub("0", text.rstrip()[-LOOP_TAIL:])[::-1]
    size, reach = len(tail), [0] * len(tail)
    left = right = 0
    for place in range(1, size):
        length = min(right - place, reach[place - left]) if place < right else 0
        while place + length < size and tail[length] == tail[place + length]:
            length += 1
        if place + length > right:
            left, right = place, place + length
        reach[place] = length
        if place + length >= max(LOOP_CHARACTERS, LOOP_TIMES * place) and (
            place + length >= LOOP_SIGNS or _says_something(tail[:place])
        ):
            return True
    return False


def _says_something(piece: str) -> bool:
    letters = set(filter(str.isalpha, piece))
    return len(letters) > 1 or any(_columns(letter) > 1 for letter in letters)
