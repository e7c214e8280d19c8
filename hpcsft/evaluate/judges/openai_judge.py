"""Any endpoint that speaks OpenAI's chat or legacy completions API, through OpenAI's own client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcsft.evaluate.judges.endpoint import EndpointJudge, client_of
from hpcsft.evaluate.judges.parsers import Completion
from hpcsft.evaluate.judges.settings import judge_settings
from hpcsft.evaluate.verdicts import Comparison, Usage
from hpcsft.spec.evaluate import JudgeSpec


def openai_judge(spec: JudgeSpec, name: str) -> EndpointJudge:
    """A judge of kind openai. Waiting without the package or a key."""
    settings = judge_settings(spec)
    library, client = client_of("OpenAI", spec, settings)

    def complete(pair: Comparison, parameters: Mapping[str, Any]) -> tuple[Completion, Usage | None]:
        if settings.api == "completions":
            prompt = settings.question.text(pair) + settings.ending
            response = client.completions.create(model=settings.model, prompt=prompt, **parameters)
            return Completion(_text(response.choices[0].text)), _usage(response)
        messages = [message._asdict() for message in settings.question.messages(pair)]
        response = client.chat.completions.create(model=settings.model, messages=messages, **parameters)
        choice = response.choices[0]
        return Completion(_said(choice.message), _top_logprobs(choice)), _usage(response)

    return EndpointJudge(spec, name, settings, complete, library, client.close)


def _said(message: Any) -> str:
    """The reply's text, or what it calls a function with."""
    if message.tool_calls:
        return _text(message.tool_calls[0].function.arguments)
    if message.function_call:
        return _text(message.function_call.arguments)
    return _text(message.content)


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where the text of the reply should be")
    return value or ""


def _top_logprobs(choice: Any) -> tuple[dict[str, float], ...]:
    places = (choice.logprobs and choice.logprobs.content) or ()
    return tuple({entry.token: entry.logprob for entry in place.top_logprobs} for place in places)


def _usage(response: Any) -> Usage | None:
    usage = response.usage
    if not usage or not isinstance(usage.prompt_tokens, int):
        return None
    return Usage(usage.prompt_tokens, usage.completion_tokens or 0)
