"""How these tests put questions to a judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpcsft.evaluate.judges import make_judge
from hpcsft.evaluate.judges.cost import Budget
from hpcsft.evaluate.judges.protocol import Judge
from hpcsft.evaluate.verdicts import Comparison, Verdict
from hpcsft.spec.evaluate import JudgeSpec

PAIR = Comparison(0, False, "What is 1 + 1?", "It is {output_2}.", "2")

PATIENT = {"model": "judge", "api": "chat", "max_concurrency": 1}


def numbered(number: int) -> list[Comparison]:
    """So many pairs whose first answers tell them apart."""
    return [PAIR._replace(row=row, first=f"answer {row}") for row in range(number)]


def number_in(request: dict[str, Any]) -> int:
    """Which of `numbered` a request is about."""
    return int(request["messages"][0]["content"].split("answer ")[-1].split()[0])


def given_by(judge: Judge, pairs: Sequence[Comparison]) -> dict[Comparison, Verdict]:
    """All that `judge` says about `pairs`."""
    given: list[tuple[Comparison, Verdict]] = []
    for _ in judge.verdicts(pairs, given.extend, Budget(judge.spec)):
        pass
    assert len(dict(given)) == len(given), "a pair was judged twice"
    return dict(given)


def judged(pairs: Sequence[Comparison], **spec: Any) -> list[Verdict]:
    """Verdicts on `pairs`, in their order, by a judge that is closed again."""
    judge = make_judge(JudgeSpec(**{**PATIENT, **spec}))
    try:
        given = given_by(judge, pairs)
    finally:
        judge.close()
    assert given.keys() == set(pairs)
    return [given[pair] for pair in pairs]


def preferred(pairs: Sequence[Comparison], **spec: Any) -> list[float | None]:
    """The same, without what the judge said."""
    return [verdict.first_better for verdict in judged(pairs, **spec)]
