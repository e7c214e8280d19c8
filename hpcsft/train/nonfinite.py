"""What becomes of a run when a loss or a gradient is no finite number."""

from __future__ import annotations

import math
from typing import Any

import torch

from hpcsft.data.batches import RowStore
from hpcsft.errors import StageError
from hpcsft.train.distributed import Ranks
from hpcsft.train.step import Computed

MOST_NAMES = 8
"""So many rows are named."""


class NonfiniteGuard:
    """Ends the run at the first step that is not finite, or passes over at most `allowed` of them.

    All ranks call it alike. Nothing of such a step is learnt in either case.
    """

    def __init__(self, ranks: Ranks, rows: RowStore, allowed: int):
        self.ranks = ranks
        self.rows = rows
        self.allowed = allowed
        self.skipped = 0
        """Steps of this run that were passed over, those of earlier attempts included."""

    def before_update(self, step: int, loss: float, computed: Computed) -> None:
        """Raises StageError on all ranks if the loss of step number `step`, counted from 1, ends the run."""
        if not math.isfinite(loss) and self.skipped >= self.allowed:
            raise self._error(step, f"its loss is {loss} in {self.where(computed)}")

    def after_update(self, step: int, loss: float, computed: Computed, grad_norm: float) -> str:
        """What is not finite, for a step whose update was thrown away. Raises StageError if that ends the run."""
        if math.isfinite(loss):
            why = f"its loss is {loss:.4f}, but its gradient norm is {grad_norm}"
        else:
            why = f"its loss is {loss} in {self.where(computed)}"
        if self.skipped >= self.allowed:
            raise self._error(step, why)
        self.skipped += 1
        return f"step {step} is passed over ({self.skipped} of at most {self.allowed}): {why}"

    def where(self, computed: Computed) -> str:
        """The conversations of the micro batches whose loss is not finite, on whatever rank they are."""
        shares = self.ranks.gather([row for rows in computed.nonfinite for row in rows.tolist()])
        found = sorted(row for share in shares for row in share)
        more = f" and {len(found) - MOST_NAMES} more" if len(found) > MOST_NAMES else ""
        return f"the micro batch of {', '.join(self.rows.names(found[:MOST_NAMES]))}{more}"

    def _error(self, step: int, why: str) -> StageError:
        used = f" ({self.skipped} were passed over before)" if self.skipped else ""
        return StageError(
            f"step {step} is not finite{used}: {why}",
            "the newest checkpoint is from before it; a lower learning rate, warm-up or model.dtype float32 usually "
            "cures it, and train.max_skipped_steps passes over a few such steps",
        )


def has_finite_states(engine: Any) -> bool:
    """Are what learns of this rank's weights and the optimizer states all finite numbers?

    Gradients that were may still lead beyond.
    """
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    # ds_tensor is ZeRO 3's part of a weight
    learning = (weight for weight in engine.module.parameters() if weight.requires_grad)
    weights = (getattr(weight, "ds_tensor", weight) for weight in learning)
    moments = (value for states in inner.state.values() for value in states.values() if torch.is_tensor(value))
    largest = [
        torch.linalg.vector_norm(tensor.detach(), ord=math.inf).float()
        for tensor in (*weights, *inner.state, *moments)
        if tensor.numel()
    ]
    return bool(torch.stack([value.cpu() for value in largest]).isfinite().all())
