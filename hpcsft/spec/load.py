"""Reading a spec: JSON, `--set` overrides, and every mistake explained at once."""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hpcsft.errors import Problem, SpecError
from hpcsft.spec.experiment import ExperimentSpec

SET_OPTION = {"metavar": "PATH=VALUE", "action": "append", "default": [], "dest": "overrides"}
"""What `--set` is to argparse, in every command that has it."""


MAY_BE_SECRET = (
    *("evaluate.judge.api_key", "evaluate.judge.base_url"),
    *("notify.webhook", "notify.command", "cluster.env", "cluster.setup"),
)
"""Fields where a secret may stand that does not belong there: what was given is not shown."""


def load_spec(path: str, overrides: Sequence[str] = ()) -> ExperimentSpec:
    """The spec in the JSON file `path`, with `--set` overrides such as "train.learning_rate=2e-5" applied.

    Raises SpecError with every problem at once. Paths in the result are absolute.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SpecError(path, [Problem("", f"{path}: cannot be read: {reason}")]) from None
    try:
        values = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise SpecError(path, [Problem("", f"{where}: not valid JSON: {error.msg}")]) from None
    except ValueError as error:
        raise SpecError(path, [Problem("", f"{path}: {error}")]) from None
    if not isinstance(values, dict):
        raise SpecError(path, [Problem("", f"{path}: a spec is a JSON object, this is {_given(values)}")])
    for override in overrides:
        _apply(values, override)
    return parse_spec(values, source=path)


def parse_spec(values: dict[str, Any], source: str = "spec") -> ExperimentSpec:
    """Validate `values`; raises SpecError with every problem at once. Paths in the result are absolute."""
    if halves := list(_half_characters(values)):
        raise SpecError(source, halves)
    try:
        return ExperimentSpec.model_validate(values).absolute()
    except ValidationError as error:
        raise SpecError(source, list(_problems(error))) from None


def _half_characters(value: Any, path: str = "") -> Iterator[Problem]:
    """Texts that no file can hold: JSON writes one character outside the first 65,536 as two halves."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _half_characters(key, path)
            yield from _half_characters(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _half_characters(inner, f"{path}[{number}]")
    elif isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        where = path.encode("utf-8", "backslashreplace").decode()
        yield Problem(where, "half a character (\\ud800 to \\udfff) is no text", "write both halves of it")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"the key '{key}' stands twice in one object")
    return dict(pairs)


def _apply(values: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not path:
        hint = "write --set train.learning_rate=2e-5"
        raise SpecError("--set", [Problem("", f"--set {override}: not of the form path=value", hint)])
    try:
        value = json.loads(text, parse_constant=_no_number)
    except ValueError:
        value = text  # a bare word is a string
    *parents, last = path.split(".")
    node = values
    for part in parents:
        child = node[part] = {} if node.get(part) is None else node[part]  # null is a section that was left out
        if not isinstance(child, dict):
            raise SpecError("--set", [Problem("", f"--set {override}: {part} is no section but {_given(child)}")])
        node = child
    node[last] = value


def _problems(error: ValidationError) -> Iterator[Problem]:
    """One problem per field: pydantic reports each branch of a union apart, users made one mistake."""
    by_path: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False, include_context=True):
        by_path.setdefault(_dotted(detail["loc"]), []).append(detail)
    for path, details in by_path.items():
        first = details[0]
        if first["type"] == "extra_forbidden":
            yield _unknown_field(path)
        elif first["type"] == "missing":
            yield Problem(path, "required, and missing", _meaning(path))
        elif first["type"] == "value_error" and not path:
            for line in _message(first).splitlines():  # rules over several sections name the field
                where, _, message = line.partition(": ")
                yield Problem(where, message)
        else:
            allowed = " or ".join(dict.fromkeys(_message(detail) for detail in details))
            secret = path.startswith(MAY_BE_SECRET) or path in ("notify", "evaluate.judge")
            hidden = secret and isinstance(first["input"], (str, list, dict))
            given = "" if hidden else f"; given {_given(first['input'])}"
            yield Problem(path, allowed + given, _nearest_value(details))


def _dotted(location: tuple[int | str, ...]) -> str:
    """The JSON path of a problem, without the names of union branches that pydantic adds."""
    dotted, node = "", ExperimentSpec
    for part in location:
        if isinstance(part, int):
            dotted += f"[{part}]"
            continue
        model = model_of(node)
        if model is not None:
            dotted += f".{part}" if dotted else part
            node = model.model_fields[part].annotation if part in model.model_fields else None
        elif _is_mapping(node):
            dotted += f".{part}"
            node = None
    return dotted


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The section behind an annotation such as `EvaluateSpec | None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        models = [model_of(argument) for argument in get_args(annotation)]
        return next((model for model in models if model), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _is_mapping(annotation: Any) -> bool:
    return annotation is dict or get_origin(annotation) is dict


def _section_at(path: str) -> type[BaseModel] | None:
    node: Any = ExperimentSpec
    for part in path.split(".") if path else []:
        model = model_of(node)
        if model is None or part not in model.model_fields:
            return None
        node = model.model_fields[part].annotation
    return model_of(node)


def _unknown_field(path: str) -> Problem:
    parent, _, name = path.rpartition(".")
    section = _section_at(parent)
    known = sorted(section.model_fields) if section else []
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {parent + '.' if parent else ''}{near[0]}?" if near else f"known: {', '.join(known)}"
    if path == "evaluate.judge.api_key":
        hint = "a key has no place in a spec: api_key_env names a variable that holds it, api_key_file a file"
    return Problem(path, "unknown field", hint)


def _meaning(path: str) -> str | None:
    parent, _, name = path.rpartition(".")
    section = _section_at(parent)
    return section.model_fields[name].description if section and name in section.model_fields else None


def _nearest_value(details: Sequence[ErrorDetails]) -> str | None:
    given = details[0]["input"]
    allowed = [word for detail in details for word in _literals(detail)]
    near = difflib.get_close_matches(given, allowed, n=1) if isinstance(given, str) else []
    return f"did you mean '{near[0]}'?" if near else None


def _literals(detail: ErrorDetails) -> list[str]:
    expected = str(detail.get("ctx", {}).get("expected", "")) if detail["type"] == "literal_error" else ""
    return expected.replace(" or ", ", ").replace("'", "").split(", ") if expected else []


_KINDS = {
    "bool": "must be true or false",
    "int": "must be a whole number",
    "float": "must be a number",
    "string": "must be a text",
    "list": "must be a list",
    "dict": "must be an object",
    "model": "must be an object",
}
"""What pydantic's errors of the wrong kind begin with, in words of JSON."""


def _message(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "literal_error":
        return f"must be {detail['ctx']['expected']}"
    kind, _, what = detail["type"].partition("_")
    if kind in _KINDS and what in ("type", "parsing", "from_float"):
        return _KINDS[kind]
    if detail["type"] == "too_short":
        return "must not be empty"
    return re.sub(r"^(Input|String|List|Dictionary) should( be)?", r"must\2", message)


def _given(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
