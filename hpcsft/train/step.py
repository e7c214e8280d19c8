"""One optimizer step in two halves: all micro batches forward and backward, then, when the ranks agree, the update.

The loss of a step is the mean over the supervised tokens of the whole global batch: every rank knows the whole order of
the rows, so that count needs no communication.
"""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import torch

from hpcsft.data.batches import RowStore
from hpcsft.data.order import MicroBatch, divide
from hpcsft.models.loss import supervised_loss
from hpcsft.train.distributed import Ranks


class Computed(NamedTuple):
    """What this rank knows of a step before the update."""

    loss_sum: float
    """Over this rank's supervised tokens."""
    nonfinite: list[MicroBatch]
    """Micro batches of this rank whose loss is no finite number."""
    data_s: float
    """Time in which this rank waited for its micro batches."""


class Updated(NamedTuple):
    """What the update did; the same on all ranks."""

    grad_norm: float
    """Before clipping; infinity or NaN where gradients are not finite."""
    applied: bool
    """False if the gradients were thrown away, because they were not finite."""


class Step:
    """Computes the optimizer steps of one attempt."""

    def __init__(self, engine: Any, ranks: Ranks, rows: RowStore, parts: int):
        self.engine = engine
        self.ranks = ranks
        self.rows = rows
        self.parts = parts
        """Every micro batch is computed in so many parts."""

    def compute(self, micro_batches: list[MicroBatch], supervised: int) -> Computed:
        """Forward and backward of this rank's share of `micro_batches`, which have `supervised` tokens together."""
        mine = [
            part for rows in self.ranks.share(micro_batches) for part in divide(rows, self.rows.lengths, self.parts)
        ]
        # DeepSpeed averages over ranks and accumulation steps; undo that and divide by the tokens instead.
        scale = self.ranks.world_size * len(mine) / supervised
        losses, data_s = [], 0.0
        for number, rows in enumerate(mine, start=1):
            began_s = time.perf_counter()
            batch = self.rows.batch(rows).to(self.ranks.device)
            data_s += time.perf_counter() - began_s
            loss = supervised_loss(self.engine, batch)
            losses.append(loss.detach())
            # A loss of infinity may still have finite gradients, and these must not be learnt.
            self.engine.backward(loss * torch.where(loss.isfinite(), scale, math.nan))
            if number < len(mine):
                self.engine.step()
        values = torch.stack(losses).tolist()
        bad = [rows for rows, value in zip(mine, values, strict=True) if not math.isfinite(value)]
        return Computed(math.fsum(values) if not bad else math.nan, bad, data_s)

    def update(self) -> Updated:
        """Apply the gradients of `compute`, or throw them away if they are not finite. All ranks do the same."""
        engine = self.engine
        if engine.zero_optimization() or engine.bfloat16_enabled():
            engine.step()
            norm = float(engine.get_global_grad_norm())
        else:  # DeepSpeed would apply these gradients whatever they are
            norm = self._plain_grad_norm()
            if not math.isfinite(norm):
                engine.zero_grad()
                engine.set_gradient_accumulation_boundary(False)
            engine.step()
            engine.set_gradient_accumulation_boundary(None)
        applied = engine.was_step_applied()
        if not applied:
            engine.lr_scheduler.step()  # the learning rate follows the step, learnt or not
        return Updated(norm, applied)

    def _plain_grad_norm(self) -> float:
        gradients = (parameter.grad for parameter in self.engine.module.parameters())
        return torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None]).item()
