"""How a judge is asked: what the spec, a template file or an AlpacaEval evaluator say, in one form. Pure."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from hpcsft.evaluate.judges.evaluator_config import load_evaluator
from hpcsft.evaluate.judges.parsers import Parser, own_parser
from hpcsft.evaluate.judges.question import QUESTION, Question, load_question
from hpcsft.key_file import KeyFileError, read_key
from hpcsft.shell import quoted
from hpcsft.spec.evaluate import JudgeSpec

LEGACY_MODELS = ("gpt-3.5-turbo-instruct", "davinci-002", "babbage-002")
"""Models that OpenAI serves through the completions API alone."""

URL_VARIABLES = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL"}
"""Where the clients look for an endpoint if they are told none."""

VENDORS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""What they take if there is none either."""


class JudgeSettings(NamedTuple):
    """Everything that a request is made of, and how its reply is read."""

    kind: str
    model: str
    base_url: str | None
    api: str
    """chat, completions or local."""
    question: Question
    ending: str
    """What stands after the question where there are no messages that end it."""
    parser: Parser
    parameters: Mapping[str, Any]
    """Further fields of the request, max_tokens among them."""

    @property
    def address(self) -> str | None:
        """Where it is asked, for messages and records, without a user's name or password. None for a local judge."""
        if self.kind not in VENDORS:
            return None
        address = self.base_url or os.environ.get(URL_VARIABLES[self.kind]) or VENDORS[self.kind]
        return re.sub(r"(?<=://)[^/@]*@", "", address)

    def identity(self, **more: str) -> str:
        """What a verdict depends on, as one text: not the address, a server may move to another node."""
        parts = {
            "kind": self.kind,
            "model": self.model,
            "api": self.api,
            "template": self.question.template + self.ending,
            "parser": [self.parser.name, self.parser.settings],
            "parameters": self.parameters,
            **more,
        }
        return json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)


def judge_settings(spec: JudgeSpec) -> JudgeSettings:
    """The settings of the judge that `spec` describes. InputError if its template or evaluator cannot be used."""
    if spec.evaluator:
        evaluator = load_evaluator(spec.evaluator, spec.kind)
        return JudgeSettings(
            kind=spec.kind,
            model=evaluator.model,
            base_url=spec.base_url or evaluator.base_url,
            api=evaluator.api if spec.api == "auto" else spec.api,
            question=evaluator.question,
            ending="",
            parser=evaluator.parser,
            parameters=evaluator.parameters,
        )
    local = spec.kind == "local"
    legacy = spec.kind == "openai" and spec.api == "auto" and spec.model.startswith(LEGACY_MODELS)
    return JudgeSettings(
        kind=spec.kind,
        model=spec.model,
        base_url=spec.base_url,
        api="local" if local else "completions" if legacy else "chat" if spec.api == "auto" else spec.api,
        question=load_question(spec.template) if spec.template else Question(QUESTION),
        ending="\n\n",
        parser=own_parser(),
        parameters={} if local else {"max_tokens": spec.max_tokens, "temperature": spec.temperature},
    )


def judge_key(spec: JudgeSpec) -> str | None:
    """The key to the judge; None where there is none. KeyFileError if its file cannot be used."""
    return read_key(spec.api_key_file) if spec.api_key_file else os.environ.get(spec.key_variable) or None


def key_problem(spec: JudgeSpec) -> str | None:
    """What is wrong with the key to the judge, or None. A server whose address is given may need none."""
    if spec.kind == "local":
        return None
    try:
        if judge_key(spec) or judge_settings(spec).base_url or os.environ.get(URL_VARIABLES[spec.kind]):
            return None
    except KeyFileError as error:
        return f"api_key_file: {error}"
    return f"{spec.key_variable} is not set"


def how_to_give_the_key(spec: JudgeSpec) -> str:
    """What a person has to do for it."""
    if not spec.api_key_file:
        return f"export {spec.key_variable}=..."
    return f"put the key into {spec.api_key_file}, and: chmod 600 {quoted(spec.api_key_file)}"
