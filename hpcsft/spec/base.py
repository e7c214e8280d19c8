"""What all sections share: frozen, no unknown fields, a docstring under every field, safe strings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """Base of every section of the spec."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


def _matching(pattern: str, allowed: str) -> Callable[[str], str]:
    """A validator: the whole value matches `pattern`, or the error tells what is `allowed`."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(allowed)
        return value

    return check


_safe_name = _matching(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    "1 to 64 letters, digits, dots, dashes or underscores, starting with a letter or digit",
)
_safe_path = _matching(
    r"[A-Za-z0-9._/~+@=,-]{1,1024}",
    "letters, digits and . _ / ~ + @ = , - only: this path is written into batch scripts",
)
_safe_word = _matching(
    r"[A-Za-z0-9][A-Za-z0-9._,:*=@+-]{0,127}",
    "letters, digits and . _ - , : * = @ + only, starting with a letter or digit",
)
_safe_expression = _matching(
    r"[A-Za-z0-9(\[][A-Za-z0-9._,:*=@+&|()\[\]-]{0,127}",
    "letters, digits and . _ - , : * = @ + & | ( ) [ ] only, starting with a letter or digit",
)


def _number_as_text(value: object) -> object:
    """Users write `"time": 90` and `"account": 1234`, and `--set` reads numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[str, AfterValidator(_safe_name)]
"""A name that becomes part of folders and job names. The small alphabet keeps shells and Slurm's %-patterns out."""

SlurmWord = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_safe_word)]
"""A name that Slurm knows: a partition, an account, a QOS."""

SlurmExpression = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_safe_expression)]
"""A value of an sbatch option that may combine names, such as `a100&ib` or `n[1-3]`; quoted in batch scripts."""

ScriptPath = Annotated[str, AfterValidator(_safe_path)]
"""A path that is written into batch scripts."""

Path = Annotated[str, Field(min_length=1)]
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
