"""How often a task began again, and why. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hpcsft.attempt.causes import CAUSES
from hpcsft.records import Record


class Attempt(Record):
    """One attempt at a task, as its journal tells it."""

    index: int
    job_id: str
    restart: int
    started: str
    """ISO 8601, UTC."""
    host: str
    cause: str | None = None
    """Why it ended, if it has; a name of attempt/causes.py, or done."""
    step: int | None = None
    """Where it stopped, or what it had saved at last."""
    lost_steps: int | None = None
    """Steps of the attempt before that it did again."""
    unfit: list[str] = []
    """The nodes that it found unfit for use."""
    excluded: bool = False
    """Does the next attempt run without them?"""

    @property
    def end_text(self) -> str:
        """Why it ended, in words; empty if it has not."""
        text = CAUSES[self.cause].text if self.cause in CAUSES else self.cause or ""
        if not self.unfit:
            return text
        return f"{text}: {', '.join(self.unfit)}" + (" (excluded from the next)" if self.excluded else "")


def attempts(rows: Sequence[Mapping[str, Any]]) -> list[Attempt]:
    """All attempts at one task, the oldest first."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        key = (row["job_id"], row["restart"])
        if row["event"] == "start":
            begun = {"index": row["index"], "job_id": key[0], "restart": key[1]}
            found.setdefault(key, {**begun, "started": row["time"], "host": row["host"]})
        if key not in found:
            continue
        if row["event"] in ("stopped", "failed"):
            found[key].setdefault("cause", row["cause"])
        elif row["event"] in ("end", "done"):  # the judgement of all that was said
            found[key]["cause"] = row.get("cause", "done")
            found[key]["unfit"] = row.get("unfit", [])
        elif row["event"] == "excluded":
            found[key]["excluded"] = "refused" not in row
        elif row["event"] == "resumed":
            found[key]["lost_steps"] = row["lost_steps"]
        if row["event"] in ("stopped", "saved"):
            found[key]["step"] = row["step"]
    return [Attempt(**attempt) for attempt in found.values()]


def restarts_text(told: Sequence[Attempt]) -> str | None:
    """How often it began again and why: "began again 3 times (2 x preempted, hung)"; None if it did not."""
    last = {attempt.index: attempt for attempt in told}
    followed = [attempt for attempt in told if attempt is not last[attempt.index]]
    again = len(followed)
    if not again:
        return None
    causes = Counter(attempt.cause for attempt in followed if attempt.cause in CAUSES)
    parts = [(f"{count} x " if count > 1 else "") + CAUSES[cause].text for cause, count in causes.most_common()]
    often = {1: "once", 2: "twice"}.get(again, f"{again} times")
    return f"began again {often}" + (f" ({', '.join(parts)})" if parts else "")
