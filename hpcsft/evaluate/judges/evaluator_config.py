"""An AlpacaEval evaluator, read where it lies: a folder with a configs.yaml, and a prompt in it or beside it. Light.

Of its configuration is taken what decides a verdict: prompt, model, parameters, parser. What AlpacaEval fills in
itself is filled in alike. How many requests are under way, prices and retries are the spec's; anything else is refused
by name.
(alpaca_eval: `annotators/base.py`, `decoders/openai.py`, `decoders/anthropic.py`)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpcsft.errors import InputError
from hpcsft.evaluate.judges.parsers import Parser, parser_of
from hpcsft.evaluate.judges.question import Question, read_template

WHERE = "evaluate.judge.evaluator"
KINDS = {"openai_completions": "openai", "anthropic_completions": "anthropic"}
"""Who completes -> the kind of judge that does the same."""

CONFIG_KEYS = {
    "prompt_template", "fn_completions", "completions_kwargs", "fn_completion_parser", "completion_parser_kwargs",
    "completion_key", "batch_size", "processors_to_kwargs", "is_randomize_output_order", "is_shuffle", "pretty_name",
    "link",
}  # fmt: skip
HARMLESS_PROCESSORS = ("ChainOfThoughtProcessor", "JsonKeysToColumnProcessor")
"""They only copy parts of a reply into columns of their own."""

OURS = {"num_procs", "batch_size", "price_per_token", "n_retries", "sleep_time"}
"""Settings that the spec has its own for."""

READ = {"model_name", "max_tokens", "max_tokens_to_sample", "is_chat", "requires_chatml", "client_kwargs"}
SENT = {
    "openai": {
        "temperature", "top_p", "logprobs", "top_logprobs", "tools", "tool_choice", "functions", "function_call",
        "stop", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "response_format",
        "max_completion_tokens", "reasoning_effort",
    },
    "anthropic": {"temperature", "top_p", "top_k", "stop_sequences"},
}  # fmt: skip


class Evaluator(NamedTuple):
    """What an evaluator says about its requests."""

    model: str
    base_url: str | None
    api: str
    """chat or completions."""
    question: Question
    parser: Parser
    parameters: Mapping[str, Any]


def load_evaluator(folder: str, kind: str) -> Evaluator:
    """The evaluator in `folder` for a judge of `kind`. InputError tells what is missing or not supported."""
    path = Path(folder).absolute() / "configs.yaml"
    config = _only_config(path)
    _refuse_unknown(path, config, CONFIG_KEYS, "setting")
    maker = config.get("fn_completions", "openai_completions")
    if maker not in KINDS:
        raise InputError(f"{WHERE}: {path}: fn_completions {maker!r} is not supported", f"allowed: {', '.join(KINDS)}")
    if KINDS[maker] != kind:
        raise InputError(f"{WHERE}: {path}: {maker} is for another kind", f'set judge.kind to "{KINDS[maker]}"')
    if (size := config.get("batch_size", 1)) != 1:
        hint = "only evaluators with batch_size 1 are: one question, one pair"
        raise InputError(f"{WHERE}: {path}: {size} pairs in one question (batch_size) are not supported", hint)
    _refuse_unknown(path, config.get("processors_to_kwargs") or {}, HARMLESS_PROCESSORS, "processor")
    settings = _mapping(path, config, "completions_kwargs")
    _refuse_unknown(path, settings, READ | OURS | SENT[kind] | {"client_function_name"}, "completions_kwargs")
    client = settings.get("client_kwargs") or {}
    _refuse_unknown(path, client, ("base_url",), "client_kwargs")
    model = settings.get("model_name")
    if not isinstance(model, str):
        raise InputError(f"{WHERE}: {path}: completions_kwargs has no model_name")
    try:
        parser = parser_of(
            config.get("fn_completion_parser") or "regex_parser", _mapping(path, config, "completion_parser_kwargs")
        )
    except ValueError as error:
        raise InputError(f"{WHERE}: {path}: {error}") from None
    return Evaluator(
        model=model,
        base_url=client.get("base_url"),
        api=_api(kind, model, settings),
        question=_question(path, config, kind),
        parser=parser,
        parameters=_parameters(kind, settings),
    )


def _only_config(path: Path) -> Mapping[str, Any]:
    import yaml

    text = read_template(path, WHERE)
    try:
        pool = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{WHERE}: {path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(pool, dict) or not pool or not all(isinstance(config, dict) for config in pool.values()):
        raise InputError(f"{WHERE}: {path}: not a configuration of AlpacaEval", "expected NAME: and its settings")
    if len(pool) > 1:
        names = ", ".join(map(str, pool))
        raise InputError(f"{WHERE}: {path}: a pool of {len(pool)} evaluators is not supported: {names}", "give one")
    return next(iter(pool.values()))


def _mapping(path: Path, config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise InputError(f"{WHERE}: {path}: {key} is no mapping")
    return value


def _refuse_unknown(path: Path, given: Any, allowed: Any, what: str) -> None:
    if unknown := sorted(str(key) for key in given if key not in allowed):
        names = ", ".join(sorted(allowed))
        raise InputError(f"{WHERE}: {path}: {what} {', '.join(unknown)} is not supported", f"allowed: {names}")


def _question(path: Path, config: Mapping[str, Any], kind: str) -> Question:
    """The prompt: a file, relative to the folder that holds the evaluators or to the evaluator's own, or the text."""
    given = str(config.get("prompt_template", ""))
    files = [folder / given for folder in (path.parents[1], path.parent)]
    found = next((file for file in files if given and len(given) < 1000 and file.is_file()), None)
    if found is None and "{output_1}" not in given:
        raise InputError(f"{WHERE}: {path}: no prompt_template {given!r}", f"looked for {files[0]} and {files[1]}")
    text = given if found is None else read_template(found, WHERE)
    if kind == "anthropic":  # marks of an API that is no more
        text = text.strip().removeprefix("Human:").removesuffix("Assistant:").strip()
    return Question(text, f"{WHERE}: {found or path}")


def _api(kind: str, model: str, settings: Mapping[str, Any]) -> str:
    legacy = "instruct" in model or ("gpt-3" in model and "turbo" not in model) or model.startswith("text-")
    chat = settings.get("is_chat", settings.get("requires_chatml", not legacy))
    return "chat" if chat or kind == "anthropic" else "completions"


def _parameters(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent, with what AlpacaEval sends where an evaluator says nothing."""
    defaults: dict[str, Any] = {"temperature": 0.7, **({"top_p": 1.0} if kind == "openai" else {})}
    given = {**defaults, **{key: settings[key] for key in SENT[kind] if key in settings}}
    limit = "max_tokens" if kind == "openai" else "max_tokens_to_sample"
    if "max_completion_tokens" not in given:
        given["max_tokens"] = settings.get(limit, 2048)
    return {key: value for key, value in given.items() if value is not None}
