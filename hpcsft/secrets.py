"""What is secret, and how it is kept out of everything that is written or shown.

Secret are the values of variables whose names say so, what `remember_secret` was told (keys read from files, variables
that a spec names), user and password in an address, and texts in the shape of well-known keys.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

HIDDEN = "[secret]"
"""What stands in the place of a secret."""

MIN_LENGTH = 8
"""Shorter values are no secrets: servers without keys are given EMPTY, none and the like."""

_NAMES = re.compile(
    r"KEY(?!BOARD|MAP|RING)|TOKEN(?!IZ)|SECRET|PASSW|PASSPHRASE|CREDENTIAL|(?:^|_)PASS(?:_|$)|(?:^|_)JWT(?:_|$)",
    re.IGNORECASE,
)
_NO_SECRETS = re.compile(
    r"(?:NCCL|UCX|FI|PSM[23]|OMPI|I_MPI)_\w*PKEY\w*|(?:\w+_)?(?:MAX|MIN|NUM)_\w*TOKENS?", re.IGNORECASE
)
"""Partition keys of InfiniBand, which are numbers of networks, and numbers of tokens."""
_USER_IN_URL = re.compile(r"(?<=://)[^\s/?#\"'<>]+@")
_USER_WITHOUT_URL = re.compile(r"[^\s/:@]+:[^\s/@]+@[\w.-]+(?::\d+)?/?")
"""An address of a proxy as curl takes it too: user:password@host:port."""
_WRITTEN_OUT = re.compile(r"://[^\s/?#@\"'<>:$]*:[^\s/?#\"'<>$]+@")
_QUERY_OF_URL = re.compile(
    r"(?i)(?P<name>[?&][\w.-]*(?:key|token|secret|passw(?:or)?d|credential|signature|sig|auth)=)[^&\s\"'#<>]+"
)
_SHAPES = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16})"
)
"""Keys of OpenAI, Anthropic, Hugging Face, GitHub, GitLab, Slack and AWS."""

_remembered: set[str] = set()


@functools.lru_cache(maxsize=4096)
def looks_secret(name: str) -> bool:
    """Does a variable of this name hold a secret? TOKENIZERS_PARALLELISM does not.

    >>> looks_secret("HF_TOKEN"), looks_secret("TOKENIZERS_PARALLELISM")
    (True, False)
    """
    return bool(_NAMES.search(name)) and not _NO_SECRETS.fullmatch(name)


def holds_credentials(address: str) -> bool:
    """Is there a user, a password, or a key in the query of this address?"""
    found = _USER_IN_URL.search(address) or _QUERY_OF_URL.search(address) or _USER_WITHOUT_URL.fullmatch(address)
    return bool(found)


def spells_secret(text: str) -> bool:
    """Does a password in an address stand in `text` as it is, and not as a variable of a shell, or a well-known key?"""
    return bool(_WRITTEN_OUT.search(text) or _SHAPES.search(text))


def remember_secret(value: str | None) -> None:
    """From now on `value` is hidden by `scrubbed`."""
    if value:
        _remembered.add(value)


def remember_variables(names: Iterable[str], environ: Mapping[str, str] | None = None) -> None:
    """From now on what these variables hold is hidden, whatever their names look like."""
    values = os.environ if environ is None else environ
    for name in names:
        remember_secret(values.get(name))


def scrubbed(text: str) -> str:
    """`text` with HIDDEN in the place of every secret that this process knows. Not for JSON: see `scrubbed_values`."""
    if not text.strip():
        return text
    pattern = _pattern(frozenset(_remembered.union(_of_environment(os.environ))))
    if pattern:
        text = pattern.sub(HIDDEN, text)
    text = _USER_IN_URL.sub(f"{HIDDEN}@", text) if "://" in text else text
    text = _QUERY_OF_URL.sub(rf"\g<name>{HIDDEN}", text) if "=" in text else text
    return _SHAPES.sub(HIDDEN, text)


def scrubbed_values(value: Any) -> Any:
    """What is to become JSON, with every text in it scrubbed; in a finished document quotes would go with secrets."""
    if isinstance(value, str):
        return scrubbed(value)
    if isinstance(value, Mapping):
        return {scrubbed_values(key): scrubbed_values(one) for key, one in value.items()}
    return [scrubbed_values(one) for one in value] if isinstance(value, (list, tuple)) else value


def scrubbed_words(words: Iterable[str]) -> list[str]:
    """A command line as it may be written down: also without what is given to a secret name, as NAME=VALUE."""
    return [_without_assignment(scrubbed(word)) for word in words]


def _without_assignment(word: str) -> str:
    name, separator, value = word.partition("=")
    secret = separator and len(value) >= MIN_LENGTH and looks_secret(name.rpartition(".")[2])
    return f"{name}={HIDDEN}" if secret and not name.endswith(("api_key_env", "api_key_file")) else word


def _of_environment(environ: Mapping[str, str]) -> Iterator[str]:
    """Values of variables with secret names; the path of a file is none."""
    for name, value in environ.items():
        if len(value) >= MIN_LENGTH and looks_secret(name) and not (value[0] in "/~" and _is_path(value)):
            yield value


@functools.lru_cache(maxsize=64)
def _is_path(value: str) -> bool:
    return os.path.exists(os.path.expanduser(value))


@functools.lru_cache(maxsize=8)
def _pattern(values: frozenset[str]) -> re.Pattern[str] | None:
    """Finds any of `values`, line by line, as it is and as JSON, repr and addresses write it; the longest first."""
    lines = {line.strip() for value in values for line in [value, *value.splitlines()]}
    secrets = {line for line in lines if len(line) >= MIN_LENGTH}
    forms = {form for line in secrets for form in (line, json.dumps(line)[1:-1], repr(line)[1:-1], quote(line, "/"))}
    forms |= {quote(line, "") for line in secrets}
    found = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.compile(found) if found else None


class ScrubbedStream:
    """A text stream that hides secrets in what is written to it; in all else it is the stream inside."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text` without secrets; returns the length of `text`."""
        self._stream.write(scrubbed(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write all `lines`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)


def guard_output() -> None:
    """From now on no secret leaves this process through sys.stdout and sys.stderr, tracebacks included."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, ScrubbedStream):
            setattr(sys, name, ScrubbedStream(stream))
