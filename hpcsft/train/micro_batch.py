"""How large a micro batch is computed at a time, after attempts that ran out of memory.

Ranks wait for each other inside a backward pass, so one that lacks memory there cannot agree with the others on
anything: its attempt ends, and the next one computes every micro batch in twice as many parts, on all ranks. The rows
of a step, their order and the global batch stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpcsft.stage import StageContext


def parts_after(rows: Sequence[Mapping[str, Any]], micro_batch_size: int) -> int:
    """In how many parts to compute each micro batch, as the journal `rows` of training tell: 1, 2, 4, ..."""
    parts = 1
    for row in rows:
        if row["event"] == "micro_batch":
            parts = row["parts"]
        elif row["event"] == "end" and row.get("halve") and 2 * parts <= micro_batch_size:
            parts *= 2
    return parts


def settle_parts(context: StageContext, accumulation_steps: int) -> int:
    """The parts of this attempt, which the journal and the log then tell. On rank 0 only."""
    micro_batch_size = context.spec.train.micro_batch_size
    parts = parts_after(context.journal.rows(), micro_batch_size)
    if parts > 1:
        context.say(
            f"memory ran out before: every micro batch is computed in {parts} parts, with {accumulation_steps * parts} "
            f"accumulation steps instead of {accumulation_steps}; the global batch stays"
        )
        context.journal.write("micro_batch", parts=parts)
    return parts
