"""The `notify` section: who is told when a run ends or waits for a person."""

from __future__ import annotations

import re
import string
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from hpcsft.secrets import spells_secret
from hpcsft.spec.base import Section, Text

EventName = Literal["done", "failed", "waiting"]

FILLED_IN = ("name", "state", "stage", "message", "run_dir")
"""What the words of a command may name in braces."""


class NotifySpec(Section):
    """Who is told when a run ends or waits for a person."""

    command: Annotated[list[Text], Field(min_length=1)] | None = None
    """A program and its arguments, such as ["mail", "-s", "{name}: {state}", "me@example.org"], run without a shell.
    {name}, {state}, {stage}, {message} and {run_dir} are filled into the arguments; the environment has HPCSFT_STATE,
    HPCSFT_STAGE, HPCSFT_MESSAGE and HPCSFT_RUN_DIR, and standard input what a webhook would get."""

    webhook: str | None = None
    """Address that gets a POST of JSON with text (Slack, Mattermost), content (Discord) and all facts; or $NAME, the
    environment variable that holds it where it is sent: such an address is a secret."""

    on: Annotated[list[EventName], Field(min_length=1)] = ["done", "failed", "waiting"]
    """What is told: all that was submitted is done, a stage failed for good, or waits for a person."""

    @field_validator("command")
    @classmethod
    def _known_names_only(cls, value: list[str] | None) -> list[str] | None:
        if value and not value[0].strip():
            raise ValueError("the first word is a program")
        if any(map(spells_secret, value or ())):
            raise ValueError("a key or a password stands in it: let a script of yours read it from a file of mode 0600")
        for word in value[1:] if value else ():
            if not _only_filled_in(word):
                allowed = ", ".join(f"{{{name}}}" for name in FILLED_IN)
                raise ValueError(f"'{word}': only {allowed} are filled in; a brace that stays one is written twice")
        return value

    @field_validator("webhook")
    @classmethod
    def _address_or_variable(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]*", value) and not is_address(value):
            raise ValueError("an address that begins with https:// or http://, or $NAME of an environment variable")
        return value

    @model_validator(mode="after")
    def _somebody(self) -> NotifySpec:
        if self.command is None and self.webhook is None:
            raise ValueError("give a command, a webhook, or both; null for neither")
        return self

    @property
    def webhook_variable(self) -> str | None:
        """The environment variable that holds the webhook, if it is not given itself."""
        return self.webhook[1:] if self.webhook and self.webhook.startswith("$") else None

    def without_secret(self, text: str) -> str:
        """`text` with the webhook's address cut down to its host."""
        if self.webhook is None or self.webhook_variable:
            return text
        return text.replace(self.webhook, f"{urlsplit(self.webhook).scheme}://{host_of(self.webhook)}/...")


def _only_filled_in(word: str) -> bool:
    try:
        fields = list(string.Formatter().parse(word))
    except ValueError:  # a single brace
        return False
    return all(name is None or (name in FILLED_IN and not form and not how) for _, name, form, how in fields)


def is_address(text: str) -> bool:
    """Is it a whole http(s) address, without a user and a password in it?"""
    if not re.fullmatch(r"https?://[!-~]+", text, re.IGNORECASE) or re.search(r"[\"\\<>]", text):
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.username is None and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def host_of(address: str) -> str:
    """All that may be told of an address: its host, with the port if it has one of its own."""
    return urlsplit(address).netloc.rpartition("@")[2]
