"""The shapes in which people keep conversations, turned into one. Pure, and light enough for a login node.

ultrachat   {"id": ..., "data": ["question", "answer", ...]}
messages    {"messages": [{"role": "user", "content": "..." or [{"type": "text", "text": "..."}, ...]}, ...]}
sharegpt    {"conversations": [{"from": "human", "value": "..."}, ...]}
alpaca      {"instruction": "...", "input": "...", "output": "...", "system": "...", "history": [["q", "a"], ...]}
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal, NamedTuple

Role = Literal["system", "user", "assistant"]

MAX_TURN_CHARS = 1_000_000
"""A longer turn is a file that was pasted or a row that was joined by mistake."""

MAX_CONVERSATION_CHARS = 2_000_000
"""The same for all turns of a conversation. It is tokenized at once, and its memory grows with it."""

MAX_TURNS = 1000
"""More turns are a log, or rows that were joined."""


class RowError(ValueError):
    """A row is no conversation; the text says why."""


class Turn(NamedTuple):
    """One turn of a conversation."""

    role: Role
    text: str


Conversation = list[Turn]
"""An optional system turn, then user and assistant in turn, ending with the assistant."""

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
}


def conversation_of(row: Any, format: str = "auto") -> Conversation:
    """The conversation in `row`, every character as it stands there.

    Raises RowError when the row is not of the format, roles do not alternate, the last answer is missing, a turn is
    blank, too long or no text, or there are too many turns or characters in all.
    """
    if not isinstance(row, dict):
        raise RowError(f"a row is a JSON object, this is {type(row).__name__}")
    turns = _READERS[detect_format(row) if format == "auto" else format](row)
    if not turns:
        raise RowError("no turns")
    if len(turns) > MAX_TURNS:
        raise RowError(f"{len(turns):,} turns, at most {MAX_TURNS:,} are allowed")
    begin = 1 if turns[0].role == "system" else 0
    for number, (role, text) in enumerate(turns, start=1):
        expected = ("user", "assistant")[(number - 1 - begin) % 2]
        if role != expected and number > begin:
            raise RowError(f"turn {number} is by '{role}', expected '{expected}'")
        _check_text(text, number)
    characters = sum(len(turn.text) for turn in turns)
    if characters > MAX_CONVERSATION_CHARS:
        raise RowError(f"{characters:,} characters in all turns, at most {MAX_CONVERSATION_CHARS:,} are allowed")
    if len(turns) == begin:
        raise RowError("no turns but that of the system")
    if turns[-1].role != "assistant":
        raise RowError(f"turn {len(turns)}, the last one, is a question without an answer")
    return turns


def detect_format(row: dict[str, Any]) -> str:
    """The format that the keys of `row` tell; RowError if none does. A key without a value, as tables have, is none."""
    filled = {key for key, value in row.items() if value is not None}
    for keys in (filled, row.keys()):
        for name, needed in _KEYS.items():
            if needed <= keys:
                return name
    shapes = "; ".join(f"{name}: {', '.join(sorted(keys))}" for name, keys in _KEYS.items())
    raise RowError(f"keys {_shown(*row)} are of no known format ({shapes})")


def check_keys(keys: Collection[str], format: str = "auto") -> None:
    """RowError if rows with these keys cannot be of the format."""
    if format == "auto":
        detect_format(dict.fromkeys(keys))
    elif missing := sorted(_KEYS[format].difference(keys)):
        raise RowError(f"'{missing[0]}' is missing, which {format} needs; the keys are {_shown(*keys)}")


def is_unicode(text: str) -> bool:
    """Can `text` be written down? JSON may spell half a surrogate pair, which no file and no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_text(text: str, number: int) -> None:
    """RowError if the text of turn `number` is nothing to learn from."""
    if not text or text.isspace():
        raise RowError(f"turn {number} is empty")
    if len(text) > MAX_TURN_CHARS:
        raise RowError(f"turn {number} has {len(text):,} characters, at most {MAX_TURN_CHARS:,} are allowed")
    if "\0" in text:
        raise RowError(f"turn {number} holds a NUL character")
    if not text.isascii() and not is_unicode(text):
        raise RowError(f"turn {number} holds half a surrogate pair, which is no text")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{where} is {_kind(value)}, expected a string")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise RowError(f"{where} is {_kind(value)}, expected a list")
    return value


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__


def _shown(*values: Any) -> str:
    """What a row holds, short and printable: it goes into files and onto terminals."""
    words = [repr(str(value)[:40])[1:-1] for value in values[:8]]
    return ", ".join(words + ["..."] * (len(values) > 8)) or "(none)"


def _ultrachat(row: dict[str, Any]) -> Conversation:
    return [
        Turn("assistant" if place % 2 else "user", _text(text, f"data[{place}]"))
        for place, text in enumerate(_list(row.get("data"), "data"))
    ]


def _role_list(key: str, role_key: str, text_key: str) -> Callable[[dict[str, Any]], Conversation]:
    def read(row: dict[str, Any]) -> Conversation:
        turns = []
        for place, item in enumerate(_list(row.get(key), key)):
            where = f"{key}[{place}]"
            if not isinstance(item, dict):
                raise RowError(f"{where} is {_kind(item)}, expected an object")
            name = _text(item.get(role_key), f"{where}.{role_key}")
            role = _ROLES.get(name)
            if role is None:
                raise RowError(f"{where}.{role_key} is '{_shown(name)}', expected one of {', '.join(_ROLES)}")
            text = item.get(text_key)
            joined = text if isinstance(text, str) else _joined(text, f"{where}.{text_key}")
            turns.append(Turn(role, joined))
        return turns

    return read


def _joined(parts: Any, where: str) -> str:
    """The text of content that is a list of parts."""
    if not isinstance(parts, list):
        return _text(parts, where)
    texts = []
    for place, part in enumerate(parts):
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = _shown(part.get("type")) if isinstance(part, dict) else _kind(part)
            raise RowError(f"{where}[{place}] is of type '{kind}', expected 'text'")
        texts.append(_text(part.get("text"), f"{where}[{place}].text"))
    return "".join(texts)


def _alpaca(row: dict[str, Any]) -> Conversation:
    system, extra = (_text(row.get(key) or "", key) for key in ("system", "input"))
    question = _text(row.get("instruction"), "instruction")
    turns = [Turn("system", system)] if system.strip() else []
    for place, pair in enumerate(_list(row.get("history") or [], "history")):
        where = f"history[{place}]"
        if len(_list(pair, where)) != 2:
            raise RowError(f"{where} has {len(pair)} texts, expected a question and an answer")
        turns += [Turn("user", _text(pair[0], f"{where}[0]")), Turn("assistant", _text(pair[1], f"{where}[1]"))]
    turns.append(Turn("user", f"{question}\n{extra}" if extra.strip() else question))
    return [*turns, Turn("assistant", _text(row.get("output"), "output"))]


_KEYS = {
    "ultrachat": {"data"},
    "messages": {"messages"},
    "sharegpt": {"conversations"},
    "alpaca": {"instruction", "output"},
}

COLUMNS = frozenset().union(*_KEYS.values(), {"input", "system", "history"})
"""Every key that some format reads."""

_READERS: dict[str, Callable[[dict[str, Any]], Conversation]] = {
    "ultrachat": _ultrachat,
    "messages": _role_list("messages", "role", "content"),
    "sharegpt": _role_list("conversations", "from", "value"),
    "alpaca": _alpaca,
}
