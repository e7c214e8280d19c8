"""Anthropic's messages API, through Anthropic's own client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcsft.evaluate.judges.endpoint import CONNECT_S, EndpointJudge, install_hint, key_of
from hpcsft.evaluate.judges.parsers import Completion
from hpcsft.evaluate.judges.settings import judge_settings
from hpcsft.evaluate.verdicts import Comparison, Usage
from hpcsft.spec.evaluate import JudgeSpec


def anthropic_judge(spec: JudgeSpec, name: str) -> EndpointJudge:
    """A judge of kind anthropic. Waiting without the package or a key."""
    try:
        import anthropic
    except ImportError:
        raise install_hint("anthropic") from None
    settings = judge_settings(spec)
    timeout = anthropic.Timeout(spec.timeout_s, connect=min(CONNECT_S, spec.timeout_s))
    client = anthropic.Anthropic(
        api_key=key_of(spec, settings), base_url=settings.base_url, max_retries=0, timeout=timeout
    )  # fmt: skip

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

    return EndpointJudge(spec, name, settings, complete, anthropic, client.close)


def _usage(response: Any) -> Usage | None:
    usage = response.usage
    if not usage or not isinstance(usage.input_tokens, int):
        return None
    return Usage(usage.input_tokens, usage.output_tokens or 0)
