"""What all sections share: frozen, no unknown fields, a docstring under every field, safe strings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from hpcsft.secrets import MIN_LENGTH, holds_credentials, looks_secret, spells_secret


class Section(BaseModel):
    """Base of every section of the spec."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


def matching(pattern: str, allowed: str) -> Callable[[str], str]:
    """A validator: the whole value matches `pattern`, or the error tells what is `allowed`."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(allowed)
        return value

    return check


_safe_name = matching(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    "1 to 64 letters, digits, dots, dashes or underscores, starting with a letter or digit",
)
safe_path = matching(
    r"[A-Za-z0-9._/~+@=,-]{1,1024}",
    "letters, digits and . _ / ~ + @ = , - only: this path is written into batch scripts",
)
"""ValueError unless a path may be written into batch scripts."""

_safe_word = matching(
    r"[A-Za-z0-9][A-Za-z0-9._,:*=@+-]{0,127}",
    "letters, digits and . _ - , : * = @ + only, starting with a letter or digit",
)
_safe_expression = matching(
    r"[A-Za-z0-9(\[][A-Za-z0-9._,:*=@+&|()\[\]-]{0,127}",
    "letters, digits and . _ - , : * = @ + & | ( ) [ ] only, starting with a letter or digit",
)


def _safe_value(value: bool | int | str) -> bool | int | str:
    return _safe_expression(value) if isinstance(value, str) else value


def _number_as_text(value: object) -> object:
    """Users write `"time": 90` and `"account": 1234`, and `--set` reads numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[str, AfterValidator(_safe_name)]
"""A name that becomes part of folders and job names. The small alphabet keeps shells and Slurm's %-patterns out."""

SlurmWord = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_safe_word)]
"""A name that Slurm knows: a partition, an account, a QOS."""

SlurmExpression = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_safe_expression)]
"""A value of an sbatch option that may combine names, such as `a100&ib` or `n[1-3]`; quoted in batch scripts."""

SbatchValue = Annotated[bool | int | str, AfterValidator(_safe_value)]
"""What `cluster.sbatch` may give to an option; true is an option without a value, false leaves it out."""

ScriptPath = Annotated[str, AfterValidator(safe_path)]
"""A path that is written into batch scripts."""


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("text without a NUL character")
    return value


Text = Annotated[str, AfterValidator(_without_nul)]
"""Any text that may become an argument, a variable or a path."""

_ASSIGNMENT = re.compile(r"\b([A-Za-z_][A-Za-z0-9_]*)=(\"[^\"$`]+\"|'[^']+'|[^\s\"'$`;&|()]+)")
"""NAME=VALUE in a shell line, where the value stands there as it is."""


def _without_keys(value: str) -> str:
    for name, word in _ASSIGNMENT.findall(value):
        if looks_secret(name) and len(word.strip("\"'")) >= MIN_LENGTH and word.strip("\"'")[0] not in "/~":
            raise ValueError(f"{name} looks like a secret, and a spec is no place for one: {_KEEP_IT_OUT}")
    if spells_secret(value):
        raise ValueError(f"a key or a password stands in it, and a spec is no place for one: {_KEEP_IT_OUT}")
    return value


_KEEP_IT_OUT = (
    "read it from a file of mode 0600, as in NAME=$(cat FILE) in cluster.setup; a judge's key is for "
    "evaluate.judge.api_key_file"
)

ShellLine = Annotated[str, AfterValidator(_without_nul), AfterValidator(_without_keys)]
"""A line of shell, run as it stands."""


def _no_secrets(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if name in RUN_BY_SHELLS:
            raise ValueError(f"{name}: shells run what is in it; lines of shell belong into cluster.setup")
        if looks_secret(name):
            raise ValueError(f"{name} looks like a secret, and a spec is no place for one: {_KEEP_IT_OUT}")
        if spells_secret(text) or (name.lower().endswith("_proxy") and holds_credentials(text)):
            raise ValueError(f"{name} holds a key or a password, and a spec is no place for one: {_KEEP_IT_OUT}")
    return value


RUN_BY_SHELLS = ("BASH_ENV", "PS4", "PROMPT_COMMAND", "SHELLOPTS")
"""Variables by which bash is told to run something: it expands BASH_ENV, commands in it included, at each start.
"""


Variables = Annotated[
    dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Text], AfterValidator(_no_secrets)
]
"""Environment variables, none of them a secret by its name; quoted in batch scripts."""

Path = Annotated[str, Field(min_length=1), AfterValidator(_without_nul)]
"""A path, relative to the folder in which submit is called; stored absolute in the run directory."""


def parse_time_min(value: str) -> float:
    """A Slurm time limit in minutes. Slurm's own forms: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S.

    >>> parse_time_min("1-12:00:00")
    2160.0
    """
    match = re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,6})(?::(\d{1,4}))?(?::(\d{1,4}))?", value)
    if not match:
        raise ValueError("a Slurm time limit such as 12:00:00, 1-00:00:00 or 90 (minutes)")
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is not None:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, minutes, seconds = 0, *(*numbers, 0)[:2]
    total = int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60
    if total <= 0:
        raise ValueError("a time limit above zero")
    return total


def _time_limit(value: str) -> str:
    parse_time_min(value)
    return value


TimeLimit = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_time_limit)]
"""A Slurm time limit."""
