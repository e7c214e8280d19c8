"""Every reply of a judge, kept at once and never asked for twice.

evaluate/CHECKPOINT/verdicts.jsonl   one line per reply: key, row, model_first, first_better, raw, refused, usage,
                                     given_up, usd, judge (digest of its identity), address

A request that failed leaves no line. A reply without a verdict does: the pair is asked about again, `max_unparsed`
times in all, and has no verdict then. A question of which every try failed while others were answered counts alike.
What the endpoint refuses for good is never asked for again.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpcsft.evaluate.judges.cost import Budget
from hpcsft.evaluate.judges.protocol import Judge
from hpcsft.evaluate.judges.standing import Standing
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
        """Refused for good."""
        self._standing = Standing()
        self._judge_digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self._lock = threading.Lock()
        spent_usd = 0.0
        for file in sorted(path.parent.parent.glob("*/verdicts.jsonl")):
            for row in read_jsonl(file):
                verdict = _verdict(row)
                self._remember(row["key"], verdict)
                spent_usd += row.get("usd") or 0.0
                if row.get("judge") == self._judge_digest:
                    self._standing.answered |= not verdict.refused
                    self._standing.decided |= verdict.first_better is not None
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
            self._standing.suspects = {pair for pair in missing if self._attempts[pair.key(self.identity)]}
            for _ in self.judge.verdicts(missing, self._take, self.budget, self._standing):
                yield len(pairs) - sum(map(self._is_open, open_keys))
        yield len(pairs)

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
                about = {"judge": self._judge_digest, "address": self.budget.settings.address}
                usd = self.budget.spend(pair, verdict)
                rows.append({**row, **verdict._asdict(), "usage": usage, "usd": usd, **about})
            append_jsonl(self.path, *rows)
            for row, (_, verdict) in zip(rows, given, strict=True):
                self._remember(row["key"], verdict)

    def _remember(self, key: str, verdict: Verdict) -> None:
        if verdict.first_better is None:
            self._attempts[key] += 1
            if verdict.refused and not verdict.given_up:
                self._refused.add(key)
            if key in self.known and self.known[key].first_better is not None:
                return
        self.known[key] = verdict


def _verdict(row: dict[str, Any]) -> Verdict:
    usage = Usage(**row["usage"]) if row.get("usage") else None
    return Verdict(row["first_better"], row["raw"], row.get("refused", False), usage, row.get("given_up", False))
