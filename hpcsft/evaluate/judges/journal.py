"""Every reply of a judge, kept at once and never asked for twice.

evaluate/CHECKPOINT/verdicts.jsonl   key, row, model_first, first_better, raw, refused, usage, usd: one line per reply

A request that failed leaves no line. A reply without a verdict does: the pair is asked about again, `max_unparsed`
times in all, and has no verdict then. What the endpoint refuses is asked for as often, but once in a run.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpcsft.evaluate.judges.cost import Budget
from hpcsft.evaluate.judges.protocol import Judge
from hpcsft.evaluate.verdicts import Comparison, Usage, Verdict
from hpcsft.records import append_jsonl, read_jsonl


class VerdictJournal:
    """Verdicts that are known, of all checkpoints: two of them may give the same answer."""

    def __init__(self, path: Path, judge: Judge, identity: str):
        self.path = path
        self.judge = judge
        self.identity = identity
        self.known: dict[str, Verdict] = {}
        """By key, the verdict or the last reply that held none."""
        self._attempts: Counter[str] = Counter()
        """Replies without a verdict."""
        self._refused: set[str] = set()
        """Asked about in this run, and refused."""
        self._lock = threading.Lock()
        spent_usd = 0.0
        for file in sorted(path.parent.parent.glob("*/verdicts.jsonl")):
            for row in read_jsonl(file):
                verdict = _verdict(row)
                self._remember(row["key"], verdict)
                spent_usd += row.get("usd") or 0.0
        self.budget = Budget(judge.spec, spent_usd)

    def missing(self, pairs: Sequence[Comparison]) -> list[Comparison]:
        """Those of `pairs` that are still to be asked about, each once, what was asked about least first."""
        by_key = {pair.key(self.identity): pair for pair in pairs}
        keys = [key for key in by_key if self._is_open(key)]
        return [by_key[key] for key in sorted(keys, key=lambda key: self._attempts[key])]

    def complete(self, pairs: Sequence[Comparison]) -> Iterator[int]:
        """Ask for what is missing, keep each reply at once, and yield how many of `pairs` are done so far.

        It yields several times a second. Waiting if the judge cannot go on, or would cost more than it may.
        """
        open_keys = {pair.key(self.identity) for pair in self.missing(pairs)}
        self.budget.check(self.missing(pairs))
        yield len(pairs) - len(open_keys)
        while missing := self.missing(pairs):
            for _ in self.judge.verdicts(missing, self._take, self.budget):
                yield len(pairs) - sum(map(self._is_open, open_keys))

    def _is_open(self, key: str) -> bool:
        verdict = self.known.get(key)
        if verdict is None:
            return True
        if verdict.first_better is not None or key in self._refused:
            return False
        return self._attempts[key] < self.judge.spec.max_unparsed

    def _take(self, given: Sequence[tuple[Comparison, Verdict]]) -> None:
        with self._lock:
            rows = []
            for pair, verdict in given:
                key = pair.key(self.identity)
                row: dict[str, Any] = {"key": key, "row": pair.row, "model_first": pair.model_first}
                usage = verdict.usage and verdict.usage._asdict()
                rows.append({**row, **verdict._asdict(), "usage": usage, "usd": self.budget.spend(pair, verdict)})
            append_jsonl(self.path, *rows)
            for row, (_, verdict) in zip(rows, given, strict=True):
                self._remember(row["key"], verdict)
                if verdict.refused:
                    self._refused.add(row["key"])

    def _remember(self, key: str, verdict: Verdict) -> None:
        if verdict.first_better is None:
            self._attempts[key] += 1
            if key in self.known and self.known[key].first_better is not None:
                return
        self.known[key] = verdict


def _verdict(row: dict[str, Any]) -> Verdict:
    usage = Usage(**row["usage"]) if row.get("usage") else None
    return Verdict(row["first_better"], row["raw"], row.get("refused", False), usage)
