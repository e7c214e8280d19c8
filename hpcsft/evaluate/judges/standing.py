"""Is it the question, or is it the judge? What is known of a judge so far, earlier runs included. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hpcsft.evaluate.verdicts import Comparison, Verdict

FAILURES_IN_A_ROW = 5
"""Questions that were given up, without a reply to any other in between: nobody is answered any more."""

REFUSALS_IN_A_ROW = 10
"""Questions that were refused before any was ever answered."""

REPLIES_WITHOUT_VERDICT = 20
"""Replies before any ever held a verdict."""


@dataclass
class Standing:
    """What a judge has replied; of a new one nothing. Not for several threads at once."""

    answered: bool = False
    """Did it ever reply to a question?"""
    decided: bool = False
    """Did a reply ever hold a verdict?"""
    suspects: Collection[Comparison] = frozenset()
    """Questions that were asked before, and have no verdict."""
    _num_failed: int = 0
    _num_refused: int = 0
    _num_undecided: int = 0

    def replied(self, verdict: Verdict) -> bool:
        """Note a reply. True if none holds a verdict, and the next will not either."""
        self.answered = True
        self._num_failed = 0
        self.decided |= verdict.first_better is not None
        self._num_undecided += 1
        return not self.decided and self._num_undecided >= REPLIES_WITHOUT_VERDICT

    def refused(self) -> bool:
        """Note a refusal. True if it is no matter of the question."""
        self._num_failed = 0
        self._num_refused += 1
        return not self.answered and self._num_refused >= REFUSALS_IN_A_ROW

    def failed(self, pair: Comparison, connected: bool) -> bool:
        """Note that a question was given up, with a server there or not. True if nobody is answered."""
        if not (self.answered and connected and pair in self.suspects):
            self._num_failed += 1
        return self._num_failed >= FAILURES_IN_A_ROW
