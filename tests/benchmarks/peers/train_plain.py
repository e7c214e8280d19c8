"""hpcsft's batches and loss in a plain PyTorch loop: the stage without its engine, ranks and run directory.

float32, or bfloat16 parameters with float32 master weights; AdamW, gradients clipped to 1. With --fused the
update of a parameter is one kernel.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from hpcsft.data.batches import RowStore
from hpcsft.data.order import TrainingOrder
from hpcsft.data.shards import read_manifest
from hpcsft.models.load import load_for_training
from hpcsft.models.loss import supervised_loss
from tests.benchmarks.peers.train_clock import MICRO_BATCH, Clock, measure
from tests.benchmarks.peers.train_optimizer import MasterAdamW


def train(arguments: argparse.Namespace, clock: Clock) -> None:
    """Until the clock has enough."""
    torch.set_num_threads(arguments.threads)
    rows = RowStore(arguments.data, read_manifest(arguments.data / "manifest.json"), "train")
    order = TrainingOrder(
        rows.lengths,
        MICRO_BATCH,
        arguments.max_length,
        True,
        per_step=arguments.accumulation,
        seed=42 + arguments.repeat,
    )
    model = load_for_training(str(arguments.model), arguments.precision, "auto")
    if arguments.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = MasterAdamW(model, fused=arguments.fused or None)
    step = 0
    enough = False
    while not enough:
        micro_batches = order.step(step)
        supervised = rows.supervised(np.concatenate(micro_batches))
        loss_sum = 0.0
        for micro_batch in micro_batches:
            clock.count(rows.tokens(micro_batch), rows.supervised(micro_batch), rows.tokens(micro_batch))
            loss = supervised_loss(model, rows.batch(micro_batch)) / supervised
            loss.backward()
            loss_sum += loss.item()
        optimizer.step(max_grad_norm=1.0)
        enough = clock.step(loss_sum)
        step += 1


if __name__ == "__main__":
    measure(train, ("--fused", {"action": "store_true"}))
