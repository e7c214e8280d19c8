"""Rows that others have published, and why they may not be compared with one's own. Pure but for reading its data."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from hpcsft.records import Record, read_json

FILE = Path(__file__).with_name("published.json")
MOST_NAMES = 3
"""More data sets are counted, not named."""
ORDERS = {"both": "both orders", "random": "one order, drawn", "reference_first": "the reference always first"}


class PromptSet(Record):
    """A set of prompts, told by its size and its parts."""

    name: str
    num: int
    datasets: list[str]


class PublishedRow(Record):
    """One model."""

    name: str
    win_rate: float
    """In percent."""
    avg_length: int | None
    """Characters."""


class PublishedTable(Record):
    """Rows that were made alike."""

    title: str
    source: str
    judge: str
    question: str
    """What the judge is asked, as in Setting."""
    reference: str
    orders: str
    """random: one order per pair, drawn as AlpacaEval does."""
    prompts: PromptSet
    note: str
    rows: list[PublishedRow]


class Setting(Record):
    """How win rates came about."""

    judge: str
    question: str = "unknown"
    """What the judge is asked: the built-in question, a template's name, or that of AlpacaEval's evaluator. A report of
    an older version does not tell."""
    reference: str
    orders: str
    num_prompts: int
    datasets: list[str]


def evaluator_question(name: str) -> str:
    """Setting.question of the evaluator `name` of AlpacaEval, which brings question, parameters and parser along."""
    return f"that of AlpacaEval's evaluator {name}"


def published_tables() -> list[PublishedTable]:
    """All that hpcsft ships."""
    return [PublishedTable.model_validate(table) for table in read_json(FILE)]


def comparability(table: PublishedTable, own: Setting) -> str:
    """One line: may the rows of `table` stand beside one's own?"""
    prompts = table.prompts
    pairs = [
        ("judge", own.judge, table.judge, _plain(own.judge) == _plain(table.judge)),
        ("question", own.question, table.question, own.question == table.question),
        ("reference", own.reference, table.reference, _plain(own.reference) == _plain(table.reference)),
        ("orders", ORDERS[own.orders], ORDERS[table.orders], own.orders == table.orders),
        (
            "prompts",
            _prompts(own.num_prompts, own.datasets),
            f"{prompts.name}'s {prompts.num}",
            own.num_prompts == prompts.num and set(own.datasets) == set(prompts.datasets),
        ),
    ]
    reasons = [f"{what} here {ours}, there {theirs}" for what, ours, theirs, alike in pairs if not alike]
    if reasons:
        return f"Not comparable with this run: {'; '.join(reasons)}."
    return "Judge, question, reference, orders and prompts are those of this run."


def _prompts(num: int, datasets: Collection[str]) -> str:
    names = sorted(filter(None, datasets))
    named = ", ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} data sets"
    return f"{num}" + (f" of {named}" if named else "")


def _plain(name: str) -> str:
    """gpt-3.5-turbo-instruct, gpt35_turbo_instruct and openai/gpt-3.5-turbo-instruct are one judge."""
    return "".join(filter(str.isalnum, name.rpartition("/")[2])).lower()
