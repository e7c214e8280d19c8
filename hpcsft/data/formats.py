"""The shapes in which people keep conversations, turned into one. Pure, and light enough for a login node.

ultrachat   {"id": ..., "data": ["question", "answer", ...]}
messages    {"messages": [{"role": "user", "content": "..."}, ...]}
sharegpt    {"conversations": [{"from": "human", "value": "..."}, ...]}
alpaca      {"instruction": "...", "input": "...", "output": "..."}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

Role = Literal["system", "user", "assistant"]


class RowError(ValueError):
    """A row is no conversation; the text says why."""


class Turn(NamedTuple):
    """One turn of a conversation."""

    role: Role
    text: str


Conversation = list[Turn]
"""An optional system turn, then user and assistant in turn, ending with the assistant."""

_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def conversation_of(row: Any, format: str = "auto") -> Conversation:
    """The conversation in `row`; a question without an answer at its end is left off.

    Raises RowError when the row is not of the format, roles do not alternate or a turn is empty.
    """
    if not isinstance(row, dict):
        raise RowError(f"a row is a JSON object, this is {type(row).__name__}")
    name = detect_format(row) if format == "auto" else format
    turns = _READERS[name](row)
    body = turns[1:] if turns and turns[0].role == "system" else turns
    if len(body) % 2:
        turns = turns[:-1]
        body = body[:-1]
    if not body:
        raise RowError("no pair of question and answer")
    for position, turn in enumerate(body):
        expected = "assistant" if position % 2 else "user"
        if turn.role != expected:
            raise RowError(f"turn {position + 1} is by '{turn.role}', expected '{expected}'")
    for position, turn in enumerate(turns):
        if not turn.text.strip():
            raise RowError(f"turn {position + 1} is empty")
    return turns


def detect_format(row: dict[str, Any]) -> str:
    """The format that the keys of `row` tell; RowError if none does."""
    for name, keys in _KEYS.items():
        if keys <= row.keys():
            return name
    shapes = "; ".join(f"{name}: {', '.join(sorted(keys))}" for name, keys in _KEYS.items())
    raise RowError(f"keys {', '.join(map(str, row)) or '(none)'} are of no known format ({shapes})")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{where} is {type(value).__name__}, expected a string")
    if not is_unicode(value):
        raise RowError(f"{where} holds half a surrogate pair, which is no text")
    return value


def is_unicode(text: str) -> bool:
    """Can `text` be written down? JSON may spell half a surrogate pair, which no file and no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _list(row: dict[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    if not isinstance(value, list):
        raise RowError(f"'{key}' is {'missing' if value is None else type(value).__name__}, expected a list")
    return value


def _ultrachat(row: dict[str, Any]) -> Conversation:
    return [
        Turn("assistant" if position % 2 else "user", _text(text, f"data[{position}]"))
        for position, text in enumerate(_list(row, "data"))
    ]


def _role_list(key: str, role_key: str, text_key: str) -> Callable[[dict[str, Any]], Conversation]:
    def read(row: dict[str, Any]) -> Conversation:
        turns = []
        for position, item in enumerate(_list(row, key)):
            where = f"{key}[{position}]"
            if not isinstance(item, dict):
                raise RowError(f"{where} is {type(item).__name__}, expected an object")
            role = _SHAREGPT_ROLES.get(_text(item.get(role_key), f"{where}.{role_key}"))
            if role is None:
                raise RowError(
                    f"{where}.{role_key} is '{item[role_key]}', expected one of {', '.join(_SHAREGPT_ROLES)}"
                )
            turns.append(Turn(role, _text(item.get(text_key), f"{where}.{text_key}")))
        return turns

    return read


def _alpaca(row: dict[str, Any]) -> Conversation:
    question = _text(row.get("instruction"), "instruction")
    extra = _text(row.get("input") or "", "input")
    return [
        Turn("user", f"{question}\n{extra}" if extra else question),
        Turn("assistant", _text(row.get("output"), "output")),
    ]


_KEYS = {
    "ultrachat": {"data"},
    "messages": {"messages"},
    "sharegpt": {"conversations"},
    "alpaca": {"instruction", "output"},
}

_READERS: dict[str, Callable[[dict[str, Any]], Conversation]] = {
    "ultrachat": _ultrachat,
    "messages": _role_list("messages", "role", "content"),
    "sharegpt": _role_list("conversations", "from", "value"),
    "alpaca": _alpaca,
}
