"""What every judge can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from hpcsft.evaluate.judges.cost import Budget
from hpcsft.evaluate.judges.standing import Standing
from hpcsft.evaluate.verdicts import Comparison, Verdict
from hpcsft.spec.evaluate import JudgeSpec

Keep = Callable[[Sequence[tuple[Comparison, Verdict]]], None]
"""Takes verdicts that were just given, from any thread."""


class Judge(Protocol):
    """Compares pairs of answers."""

    name: str
    """How the judge is called in annotations and tables."""
    spec: JudgeSpec

    def verdicts(
        self, pairs: Sequence[Comparison], keep: Keep, budget: Budget, standing: Standing | None = None
    ) -> Iterator[None]:
        """Hand one reply to each pair to `keep`, in any order, as soon as it is there.

        `standing` is what is known of the judge, and is kept up to date.

        It yields several times a second, for the caller to look around; closed early, it asks no more and ends soon.
        Waiting if the judge cannot go on; all that was replied has been handed over by then.
        """
