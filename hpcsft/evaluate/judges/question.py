"""What a judge is asked: a template, filled with an instruction and two answers. Pure.

A template may hold ChatML markers, which make messages of it. They are looked for before the answers are filled in, in
one pass: no answer can begin a message or take the place of another.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from hpcsft.errors import InputError
from hpcsft.evaluate.verdicts import Comparison

QUESTION = """Two assistants answered the same instruction. Decide which answer a careful reader would prefer: \
the one that is more correct, more helpful and better written. The order in which they stand means nothing.

Instruction:
{instruction}

Output (a):
{output_1}

Output (b):
{output_2}

Which of the two is better? Reply with exactly "Output (a)" or "Output (b)"."""

FIELDS = ("instruction", "output_1", "output_2")
ROLES = ("system", "user", "assistant")
_PLACEHOLDER = re.compile(r"\{(" + "|".join(FIELDS) + r")\}")
_START, _END = "<|im_start|>", "<|im_end|>"


class Message(NamedTuple):
    """One message to the judge."""

    role: str
    content: str


class Question:
    """A template with {instruction}, {output_1} (the answer shown first) and {output_2}. Other braces stay as they are.

    InputError, which begins with `where`, if a placeholder is missing or the ChatML markers are not in order.
    """

    def __init__(self, template: str, where: str = "evaluate.judge.template"):
        missing = [f"{{{field}}}" for field in FIELDS if f"{{{field}}}" not in template]
        if missing:
            hint = "output_1 is the answer shown first; the judge is to reply Output (a) for it, else Output (b)"
            raise InputError(f"{where}: {', '.join(missing)} is missing", hint)
        self.template = template
        self._messages = _messages(template, where)

    def text(self, pair: Comparison) -> str:
        """The question as one text."""
        return _filled(self.template, pair)

    def messages(self, pair: Comparison) -> list[Message]:
        """The question as messages: one of the user, unless the template has its own."""
        return [Message(role, _filled(content, pair)) for role, content in self._messages]


def load_question(path: str) -> Question:
    """The template in the file `path`. InputError if it cannot be read or lacks a placeholder."""
    return Question(read_template(Path(path), "evaluate.judge.template"), f"evaluate.judge.template: {path}")


def read_template(path: Path, where: str) -> str:
    """The text of `path`; InputError naming `where` if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{where}: {path}: cannot be read: {reason}") from None


def _filled(template: str, pair: Comparison) -> str:
    values = dict(zip(FIELDS, (pair.instruction, pair.first, pair.second), strict=True))
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template).strip()


def _messages(template: str, where: str) -> list[Message]:
    if _START not in template:
        return [Message("user", template)]
    text = template.strip()
    if not text.startswith(_START) or not text.endswith(_END):
        raise InputError(f"{where}: text stands outside of {_START} and {_END}")
    messages = []
    for part in text.split(_START)[1:]:
        role, _, rest = part.partition("\n")
        content, end, _ = rest.partition(_END)
        if role.strip() not in ROLES or not end:
            raise InputError(f"{where}: no message: {part[:40]!r}", f"{_START}ROLE, a line break, the text, {_END}")
        messages.append(Message(role.strip(), content))
    return messages
