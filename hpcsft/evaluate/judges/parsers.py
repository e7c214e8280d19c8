r"""The verdict in a judge's reply. Pure.

AlpacaEval's parsers give a list of preferences, one for each pair that was asked about: 1 if what was shown first is
better, 2 if the other is, a number between for a judge that weighs, 0 for a draw. Here one pair is asked about at a
time, so that a list of any other length is no verdict. (alpaca_eval, `completion_parsers.py`)
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

DEEP = (SyntaxError, RecursionError, MemoryError)
"""What Python's own parser raises on a reply that is no literal, or one without end."""


class Completion(NamedTuple):
    """What a judge replied."""

    text: str
    top_logprobs: tuple[Mapping[str, float], ...] = ()
    """Of each token of the reply: the likeliest tokens at its place and their log-probabilities."""


class Parser(NamedTuple):
    """A parser by name, with its settings. ValueError from `parser_of` if there is no such parser."""

    name: str
    settings: Mapping[str, Any]
    run: Callable[[Any], list[Any]]

    @property
    def needs_logprobs(self) -> bool:
        """Does it read log-probabilities instead of the text?"""
        return self.name == "logprob_parser"

    def first_better(self, completion: Completion) -> float | None:
        """Probability that the answer shown first is better; None if the reply does not tell."""
        try:
            values = self.run(completion if self.needs_logprobs else completion.text)
            value = float(values[0]) if len(values) == 1 else math.nan
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, *DEEP):
            return None
        if value == 0:
            return 0.5
        return 2 - value if 1 <= value <= 2 else None


def own_parser() -> Parser:
    """For questions that ask for `Output (a)` or `Output (b)`: exactly one of them, at the start of a line."""

    def run(text: str) -> list[int]:
        found = set(re.findall(r"(?:^|\n)[ \t]*Output \(([ab])\)", text))
        return [1 if letter == "a" else 2 for letter in found]

    return Parser("output_a_or_b", {}, run)


def parser_of(name: str, settings: Mapping[str, Any]) -> Parser:
    """AlpacaEval's parser `name`. ValueError tells what is not known, and what is."""
    if name not in PARSERS:
        raise ValueError(f"no parser {name!r}; there are: {', '.join(PARSERS)}")
    needed, optional, make = PARSERS[name]
    unknown, missing = set(settings) - {*needed, *optional}, set(needed) - set(settings)
    if unknown or missing:
        takes = ", ".join([*needed, *(f"{name} (optional)" for name in optional)]) or "no settings"
        raise ValueError(f"{name} takes {takes}, not: {', '.join(map(str, settings)) or 'none'}")
    return Parser(name, settings, make(**settings))


def _regex(outputs_to_match: Mapping[Any, str]) -> Callable[[str], list[Any]]:
    try:
        patterns = {key: re.compile(pattern) for key, pattern in outputs_to_match.items()}
    except (AttributeError, TypeError, re.error) as error:
        raise ValueError(f"regex_parser: outputs_to_match is no mapping of regular expressions: {error}") from None

    def run(text: str) -> list[Any]:
        found = []
        while matches := [(match.start(), key, match) for key, p in patterns.items() if (match := p.search(text))]:
            _, key, match = min(matches, key=lambda item: item[0])
            found.append(key)
            if match.end() == 0:
                return []  # it would match the same empty text for ever
            text = text[match.end() :]
        return found

    return run


def _ranking(model_1_name: str = "model_1") -> Callable[[Any], list[Any]]:
    def run(value: Any) -> list[Any]:
        ranking = ast.literal_eval(value) if isinstance(value, str) else value
        rank = [entry for entry in ranking if entry["model"] == model_1_name][0]["rank"]  # noqa: RUF015
        return [rank] if rank in (1, 2) else []

    return run


def _lmsys() -> Callable[[str], list[Any]]:
    def run(text: str) -> list[Any]:
        first, second = map(float, text.partition("\n")[0].replace(",", " ").split(" "))
        return [1 if first > second else 2 if first < second else 0]

    return run


def _json(annotation_key: str | None) -> Callable[[str], list[Any]]:
    def run(text: str) -> list[Any]:
        fenced = re.search(r"```json(.*?)```", text, re.DOTALL)
        loaded = json.loads(fenced[1] if fenced else text)
        entries = [loaded] if isinstance(loaded, dict) else loaded
        return [entry if annotation_key is None else entry[annotation_key] for entry in entries]

    return run


def _eval() -> Callable[[str], list[Any]]:
    def run(text: str) -> list[Any]:
        value = ast.literal_eval(text)
        return value if isinstance(value, list) else [value]

    return run


def _replace(replacer: Mapping[Any, Any], default_replacer: Any = "auto") -> Callable[[Any], list[Any]]:
    return lambda value: [replacer.get(value, value if default_replacer == "auto" else default_replacer)]


def _logprob(
    numerator_token: str, denominator_tokens: Sequence[str], is_binarize: bool = True, log_prob_index: Any = "batch"
) -> Callable[[Completion], list[float]]:
    """2 - P(numerator) / P(denominator); with is_binarize only which of the two sides is likelier."""

    def preference(logprobs: Mapping[str, float]) -> float:
        logs = {token: logprobs.get(token, -math.inf) for token in (numerator_token, *denominator_tokens)}
        highest = max(logs.values())
        if highest == -math.inf:
            return math.nan
        if is_binarize:
            others = [logs[token] for token in denominator_tokens if token != numerator_token]
            return 1 if all(logs[numerator_token] > other for other in others) else 2
        chances = {token: math.exp(log - highest) for token, log in logs.items()}
        return 2 - chances[numerator_token] / sum(chances[token] for token in denominator_tokens)

    def run(completion: Completion) -> list[float]:
        places = completion.top_logprobs
        return [preference(place) for place in (places if log_prob_index == "batch" else [places[log_prob_index]])]

    return run


def _pipeline(parsers_to_kwargs: Mapping[str, Any], is_squeeze: bool = True) -> Callable[[Any], list[Any]]:
    """Every parser is applied to each thing that the one before it gave."""
    steps = [parser_of(name, settings or {}).run for name, settings in parsers_to_kwargs.items()]
    if "logprob_parser" in parsers_to_kwargs or not steps:
        raise ValueError("pipeline_meta_parser: needs parsers, all of them for text")

    def apply(value: Any, depth: int) -> Any:
        found = steps[depth](value)
        if depth + 1 < len(steps):
            found = [apply(item, depth + 1) for item in found]
        return found[0] if is_squeeze and depth and len(found) == 1 else found

    return lambda value: apply(value, 0)


PARSERS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[..., Callable[[Any], list[Any]]]]] = {
    "regex_parser": (("outputs_to_match",), (), _regex),
    "ranking_parser": ((), ("model_1_name",), _ranking),
    "lmsys_parser": ((), (), _lmsys),
    "json_parser": (("annotation_key",), (), _json),
    "eval_parser": ((), (), _eval),
    "replace_parser": (("replacer",), ("default_replacer",), _replace),
    "logprob_parser": (("numerator_token", "denominator_tokens"), ("is_binarize", "log_prob_index"), _logprob),
    "pipeline_meta_parser": (("parsers_to_kwargs",), ("is_squeeze",), _pipeline),
}
"""Name -> settings that it needs, settings that it may have, what makes it."""
