"""Anthropic's messages API, through Anthropic's own client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcsft.evaluate.judges.endpoint import EndpointJudge, client_of
from hpcsft.evaluate.judges.parsers import Completion
from hpcsft.evaluate.judges.settings import judge_settings
from hpcsft.evaluate.verdicts import Comparison, Usage
from hpcsft.spec.evaluate import JudgeSpec


def anthropic_judge(spec: JudgeSpec, name: str) -> EndpointJudge:
    """A judge of kind anthropic. Waiting without the package or a key."""
    settings = judge_settings(spec)
    library, client = client_of("Anthropic", spec, settings)

    def complete(pair: Comparison, parameters: Mapping[str, Any]) -> tuple[Completion, Usage | None]:
        messages = settings.question.messages(pair)
        system = "\n\n".join(message.content for message in messages if message.role == "system")
        others = {key: value for key, value in parameters.items() if key != "max_tokens"}
        response = client.messages.create(
            model=settings.model,
            max_tokens=parameters["max_tokens"],
            messages=[message._asdict() for message in messages if message.role != "system"],
            extra_body=others,  # newer clients have no argument for a temperature
            **({"system": system} if system else {}),
        )
        text = "".join(block.text for block in response.content if block.type == "text")
        return Completion(text), _usage(response)

    return EndpointJudge(spec, name, settings, complete, library, client.close)


def _usage(response: Any) -> Usage | None:
    usage = response.usage
    if not usage or not isinstance(usage.input_tokens, int):
        return None
    return Usage(usage.input_tokens, usage.output_tokens or 0)
